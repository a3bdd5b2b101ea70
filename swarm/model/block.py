"""One Block: attention and a mixture of experts, each behind its norm, each added to the residual.

R: rows   H: hidden
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from swarm.config import ModelConfig
from swarm.model.attention import Attention
from swarm.model.cache import PagedCache
from swarm.model.experts import CopyPort, ExpertPort
from swarm.model.memory import num_bytes
from swarm.model.moe import MoE
from swarm.model.norm import rms_norm
from swarm.model.product import Weight
from swarm.model.rope import Angles
from swarm.model.rows import Rows


@dataclass(frozen=True)
class BlockCore:
    """A Block's weights without its experts."""

    attention_norm: Tensor  # [H]
    wqkv: Weight  # [(NH + 2 KV) D, H]
    wo: Weight  # [H, NH D]
    ffn_norm: Tensor  # [H]
    router: Tensor  # [E, H]

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.attention_norm, self.wqkv, self.wo, self.ffn_norm, self.router)


@dataclass(frozen=True)
class Block:
    """One transformer layer, by its index in the whole model."""

    index: int
    attention_norm: Tensor
    attention: Attention
    ffn_norm: Tensor
    moe: MoE
    eps: float

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        index: int,
        core: BlockCore,
        ports: Mapping[int, ExpertPort],
        counts: list[int] | None = None,
        copies: Mapping[int, CopyPort] | None = None,
    ) -> Block:
        """Put a Block together.

        Args:
            ports: where each of its experts is.
            counts: where its router's choices are counted.
            copies: where else some of the experts that are here are.
        """
        attention = Attention(index, config.head_dim, config.num_heads, config.num_kv_heads, core.wqkv, core.wo)
        moe = MoE(index, config.top_k, core.router, ports, counts if counts is not None else [], copies or {})
        return cls(index, core.attention_norm, attention, core.ffn_norm, moe, config.norm_eps)

    def forward(self, h: Tensor, rows: Rows, angles: Angles, cache: PagedCache) -> Tensor:
        """`h` [R, H] to [R, H]; the rows' keys and values are in the cache afterwards."""
        h = h + self.attention.forward(rms_norm(h, self.attention_norm, self.eps), rows, angles, cache)
        return h + self.moe.forward(rms_norm(h, self.ffn_norm, self.eps))
