"""Grouped-query attention (arXiv 2305.13245) over a paged cache.

R: rows   H: hidden   NH: heads   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from swarm.model.cache import PagedCache
from swarm.model.product import Weight, product
from swarm.model.rope import Angles
from swarm.model.rows import Rows


@dataclass(frozen=True)
class Attention:
    """One Block's attention; q, k and v are one product."""

    block: int
    head_dim: int
    num_heads: int
    num_kv_heads: int
    wqkv: Weight  # [(NH + 2 KV) D, H]
    wo: Weight  # [H, NH D]

    def forward(self, x: Tensor, rows: Rows, angles: Angles, cache: PagedCache) -> Tensor:
        """Append the rows' keys and values, attend to all that each row may see. `x` [R, H] to [R, H]."""
        qkv = product(x, self.wqkv).contiguous().view(x.shape[0], -1, self.head_dim)  # [R, NH + 2 KV, D]
        turning = self.num_heads + self.num_kv_heads
        qk = angles.rotate(qkv[:, :turning])  # [R, NH + KV, D]
        cache.append(self.block, rows, qk[:, self.num_heads :], qkv[:, turning:])
        seen = cache.attend(self.block, rows, qk[:, : self.num_heads])  # [R, NH, D]
        return product(seen.reshape(x.shape[0], -1), self.wo)
