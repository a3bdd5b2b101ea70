"""One Block: attention and a mixture of experts, each behind its norm, each added to the residual.

R: rows   H: hidden
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.config import ModelConfig
from swarm.model.alone import AttentionAlone
from swarm.model.attention import Attention
from swarm.model.cache import PagedCache
from swarm.model.experts import CopyPort, ExpertPort, LocalExperts, SharedExpert
from swarm.model.few import FewExperts
from swarm.model.memory import num_bytes
from swarm.model.moe import MoE
from swarm.model.norm import NORMS, Norm
from swarm.model.product import Weight
from swarm.model.rope import Angles
from swarm.model.router import Router
from swarm.model.rows import Rows


@dataclass(frozen=True)
class BlockCore:
    """A Block's weights without its experts. What has a default is there in some families only."""

    attention_norm: Tensor  # [H]
    wqkv: Weight  # [(NH + 2 KV) D, H]
    wo: Weight  # [H, NH D]
    ffn_norm: Tensor  # [H]
    router: Tensor | None = None  # [E, H]
    bqkv: Tensor | None = None  # [(NH + 2 KV) D]
    bo: Tensor | None = None  # [H]
    q_norm: Tensor | None = None  # [D]
    k_norm: Tensor | None = None  # [D]
    sinks: Tensor | None = None  # [NH]
    router_bias: Tensor | None = None  # [E]
    shared: SharedExpert | None = None

    @property
    def num_bytes(self) -> int:
        attention = num_bytes(self.wqkv, self.wo, self.bqkv, self.bo, self.q_norm, self.k_norm, self.sinks)
        return attention + num_bytes(self.attention_norm, self.ffn_norm, self.router, self.router_bias, self.shared)


@dataclass(frozen=True)
class Block:
    """One transformer layer, by its index in the whole model."""

    index: int
    attention_norm: Tensor
    attention: Attention
    ffn_norm: Tensor
    moe: MoE
    eps: float
    norm: Norm
    attention_alone: AttentionAlone | None = None
    """Where a row that is alone has a call of its own."""
    few: FewExperts | None = None
    """Where few rows have calls of their own."""

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
            ports: where each of its experts is; not looked at where it has a dense MLP in its core instead.
            counts: where its router's choices are counted.
            copies: where else some of the experts that are here are.
        """
        routed = config.experts_in(index) > 0
        router = Router(core.router, config.top_k, config.experts.norm, core.router_bias) if core.router is not None else None
        counted = counts if counts is not None and routed else []
        moe = MoE(index, router, ports if routed else {}, counted, copies or {} if routed else {}, core.shared)
        attention, norm, eps = _attention(config, index, core), NORMS[config.norm], config.norm_eps
        alone, few = AttentionAlone.of(attention, norm, core.attention_norm, eps), _few(moe, norm, core.ffn_norm, eps)
        return cls(index, core.attention_norm, attention, core.ffn_norm, moe, eps, norm, alone, few)

    def forward(self, h: Tensor, rows: Rows, angles: Angles, cache: PagedCache) -> Tensor:
        """`h` [R, H] to [R, H]; the rows' keys and values are in the cache afterwards."""
        place = cache.places(self.index, rows) if self.attention_alone and self.attention_alone.takes(h) else None
        if self.attention_alone is None or place is None:
            x = self.norm(h, self.attention_norm, self.eps)
            return self._with_experts(h, self.attention.forward(x, rows, angles, cache))
        if self.few and self.all_alone:
            h, choice = self.few.behind(self.attention_alone, h, place, angles)
            self.moe.count(choice.experts, [1] * len(choice.experts))
            return h
        return self._with_experts(self.attention_alone.forward(h, place, angles), None)

    @property
    def all_alone(self) -> bool:
        """Whether a row that is alone goes through all of it in one call."""
        here = self.few is not None and len(self.few.alone) == max(1, len(self.moe.ports))
        return here and self.attention_alone is not None and not self.moe.copies

    def _with_experts(self, h: Tensor, added: Tensor | None) -> Tensor:
        if self.few and self.few.takes(h):
            return self.moe.add_few_to(h, added, self.few)
        h = h if added is None else h + added
        return self.moe.add_to(h, self.norm(h, self.ffn_norm, self.eps))


def _few(moe: MoE, norm: Norm, weight: Tensor, eps: float) -> FewExperts | None:
    if not moe.ports:
        plain = moe.shared is not None and moe.shared.gate is None
        return FewExperts.of(None, norm, weight, eps, {0: moe.shared.weights}) if moe.shared and plain else None
    if moe.on_card or moe.shared:
        return None
    local = {e: p.weights[moe.block, e] for e, p in moe.ports.items() if isinstance(p, LocalExperts)}
    return FewExperts.of(moe.router, norm, weight, eps, local)


def _attention(config: ModelConfig, index: int, core: BlockCore) -> Attention:
    heads, kv_heads, qk_norm = config.num_heads, config.num_kv_heads, None
    if core.q_norm is not None and core.k_norm is not None:
        qk_norm = torch.cat((core.q_norm.expand(heads, -1), core.k_norm.expand(kv_heads, -1)))
    return Attention(
        block=index,
        head_dim=config.head_dim,
        num_heads=heads,
        num_kv_heads=kv_heads,
        wqkv=core.wqkv,
        wo=core.wo,
        bqkv=core.bqkv,
        bo=core.bo,
        qk_norm=qk_norm,
        eps=config.norm_eps,
        clip=config.attention.clip,
        window=config.window(index),
        sinks=core.sinks,
    )
