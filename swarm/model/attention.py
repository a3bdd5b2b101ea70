"""Grouped-query attention (arXiv 2305.13245) over a paged cache.

R: rows   H: hidden   NH: heads   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from swarm.model.cache import PagedCache
from swarm.model.product import Weight, product
from swarm.model.rope import Angles
from swarm.model.rows import Rows


@dataclass(frozen=True)
class Attention:
    """One Block's attention; q, k and v are one product. What has a default is there in some families only."""

    block: int
    head_dim: int
    num_heads: int
    num_kv_heads: int
    wqkv: Weight  # [(NH + 2 KV) D, H]
    wo: Weight  # [H, NH D]
    bqkv: Tensor | None = None  # [(NH + 2 KV) D]
    bo: Tensor | None = None  # [H]
    qk_norm: Tensor | None = None  # [NH + KV, D]
    eps: float = 0.0
    """Of `qk_norm`."""
    clip: float = 0.0
    """q, k and v are clamped to minus and plus this; 0: not."""
    window: int = 0
    """Positions that a row sees, its own included; 0: all."""
    sinks: Tensor | None = None  # [NH]

    def forward(self, x: Tensor, rows: Rows, angles: Angles, cache: PagedCache) -> Tensor:
        """Append the rows' keys and values, attend to all that each row may see. `x` [R, H] to [R, H]."""
        qkv = self._qkv(x)  # [R, NH + 2 KV, D]
        turning = self.num_heads + self.num_kv_heads
        qk = qkv[:, :turning]
        if self.qk_norm is not None:
            qk = F.rms_norm(qk, (self.head_dim,), None, self.eps) * self.qk_norm
        qk = angles.rotate(qk)  # [R, NH + KV, D]
        cache.append(self.block, rows, qk[:, self.num_heads :], qkv[:, turning:])
        seen = cache.attend(self.block, rows, qk[:, : self.num_heads], self.window, self.sinks)  # [R, NH, D]
        out = product(seen.reshape(x.shape[0], -1), self.wo)
        return out if self.bo is None else out + self.bo

    def _qkv(self, x: Tensor) -> Tensor:
        qkv = product(x, self.wqkv)
        if self.bqkv is not None:
            qkv = qkv + self.bqkv
        if self.clip:
            qkv = qkv.clamp(-self.clip, self.clip)
        return qkv.contiguous().view(x.shape[0], -1, self.head_dim)
