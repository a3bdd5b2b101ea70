"""Grouped-query attention (arXiv 2305.13245) over a paged cache.

R: rows   H: hidden   NH: heads   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch.nn.functional as F
from torch import Tensor

from swarm.model.cache import PagedCache
from swarm.model.native.halves import Heads, halves
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
    heads: Heads = field(init=False, repr=False, compare=False)
    """The same for what is compiled."""

    def __post_init__(self) -> None:
        sizes = self.num_heads, self.num_kv_heads, self.head_dim, self.window
        object.__setattr__(self, "heads", Heads(sizes, self.head_dim**-0.5))

    def forward(self, x: Tensor, rows: Rows, angles: Angles, cache: PagedCache) -> Tensor:
        """Append the rows' keys and values, attend to all that each row may see. `x` [R, H] to [R, H]."""
        qkv = self._qkv(x)  # [R, NH + 2 KV, D]
        turning = self.num_heads + self.num_kv_heads
        qk, v = qkv[:, :turning], qkv[:, turning:]
        if self.qk_norm is not None:
            qk = F.rms_norm(qk, (self.head_dim,), None, self.eps) * self.qk_norm
        seen = self._seen(qk, v, rows, angles, cache)  # [R, NH, D]
        out = product(seen.reshape(x.shape[0], -1), self.wo)
        return out if self.bo is None else out + self.bo

    def _seen(self, qk: Tensor, v: Tensor, rows: Rows, angles: Angles, cache: PagedCache) -> Tensor:
        """What rows `qk` [R, NH + KV, D], whose values are `v` [R, KV, D], see of their Sessions: [R, NH, D]."""
        calls = halves() if self.sinks is None else None
        places = cache.places(self.block, rows) if calls and calls.reads(qk, v) else None
        if calls is None or places is None:
            return self._seen_at_length(qk, v, rows, angles, cache)
        seen = calls.attend(self.heads, qk, v, places, angles.cos, angles.sin)
        if rows.others:
            rest = self._seen_at_length(qk, v, replace(rows, segments=rows.others), angles, cache)
            for segment, part in zip(rows.others, rest.split([s.end - s.start for s in rows.others]), strict=True):
                seen[segment.start : segment.end] = part
        return seen

    def _seen_at_length(self, qk: Tensor, v: Tensor, rows: Rows, angles: Angles, cache: PagedCache) -> Tensor:
        """The same of the Segments of `rows`, side by side, in any number of rows and on any device."""
        qk = angles.rotate(qk)
        cache.append(self.block, rows, qk[:, self.num_heads :], v)
        return cache.attend(self.block, rows, qk[:, : self.num_heads], self.window, self.sinks)

    def _qkv(self, x: Tensor) -> Tensor:
        qkv = product(x, self.wqkv)
        if self.bqkv is not None:
            qkv = qkv + self.bqkv
        if self.clip:
            qkv = qkv.clamp(-self.clip, self.clip)
        return qkv.contiguous().view(x.shape[0], -1, self.head_dim)
