"""A Block as a CPU computes it, beside the same one in fp64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate

import torch
from torch import Tensor

from swarm.bits import Form
from swarm.config import ModelConfig
from swarm.model.block import Block, BlockCore
from swarm.model.cache import PagedCache
from swarm.model.experts import ExpertWeights, LocalExperts
from swarm.model.product import Weight
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.matrix import matrix_of
from swarm.model.rope import Angles
from swarm.model.rows import Rows, Segment
from swarm.weights.quantize import quantize

H, F, E = 256, 192, 8
CONFIG = ModelConfig(
    architecture="MixtralForCausalLM", hidden=H, ffn=F, num_blocks=1, num_heads=6, num_kv_heads=2, head_dim=64, num_experts=E,
    top_k=2, vocab=64, max_positions=512, norm_eps=1e-5, rope_theta=1e4, tied_head=False, dtype="bf16", bos_id=1, eos_ids=(2,),
)  # fmt: skip
BF16, FP64 = torch.bfloat16, torch.float64


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


@cache
def weight(form: str, rows: int, columns: int, seed: int = 0) -> tuple[Weight, Tensor]:
    """A matrix, and the same in fp64."""
    numbers = drawn(rows, columns, seed=seed) / columns**0.5
    if form == "bf16":
        return numbers.to(BF16), numbers.to(BF16).to(FP64)
    matrix = matrix_of([quantize(numbers, Form.of(form)).codes], BF16)
    exact = matrix.q.to(FP64) * matrix.scale.to(FP64).unsqueeze(1) if isinstance(matrix, Int8Matrix) else matrix.dense().to(FP64)
    return matrix, exact


@dataclass(frozen=True)
class Pair:
    """One Block as it computes, and the same one in fp64, both with the same history in pages that lie apart."""

    here: Block
    truth: Block
    cache: PagedCache
    exact: PagedCache
    rows: Rows
    """Not laid out: torch's way."""
    angles: Angles

    @classmethod
    def of(cls, form: str, sessions: Sequence[tuple[int, int]] = ((0, 1),), config: ModelConfig = CONFIG) -> Pair:
        """With Sessions of so many positions each, and so many rows behind them."""
        names = (("wqkv", 640, H), ("wo", H, 384))
        attention = {name: weight(form, rows, columns) for name, rows, columns in names}
        experts = [(weight(form, 2 * F, H, e), weight(form, H, F, e)) for e in range(E)]
        norms, router = [(1 + drawn(H, seed=s) / 8).to(BF16) for s in (1, 2)], (drawn(E, H) / 8).to(BF16)

        def block(of: int, dtype: torch.dtype) -> Block:
            wqkv, wo = attention["wqkv"][of], attention["wo"][of]
            core = BlockCore(norms[0].to(dtype), wqkv, wo, norms[1].to(dtype), router.to(dtype))
            local = LocalExperts({(0, e): ExpertWeights(first[of], second[of]) for e, (first, second) in enumerate(experts)})
            return Block.of(config, 0, core, dict.fromkeys(range(E), local))

        rows = Rows.of(segments(sessions))
        angles = Angles.of(rows.positions, 64, 1e4)
        caches = filled(config, sessions, BF16, scattered=True), filled(config, sessions, FP64)
        return cls(block(0, BF16), block(1, FP64), *caches, rows, angles)

    @property
    def laid(self) -> Rows:
        """The rows as calls want them."""
        return self.cache.laid(self.rows)

    def alone(self, h: Tensor) -> Tensor:
        """`h` [1, H] and what attention adds to it, in one call."""
        attention, places = self.here.attention_alone, self.cache.places(0, self.laid)
        assert attention is not None and places is not None
        return attention.forward(h, places, self.angles)

    def narrowed(self, wide: bool) -> Pair:
        """By the widest vectors that this CPU has, or by those that most have."""
        alone, few = self.here.attention_alone, self.here.few
        assert alone is not None and few is not None
        calls, sums = replace(alone.calls, wide=wide), replace(few.sums, wide=wide)
        here = replace(self.here, attention_alone=replace(alone, calls=calls), few=replace(few, calls=calls, sums=sums))
        return replace(self, here=here)


def segments(sessions: Sequence[tuple[int, int]]) -> list[Segment]:
    starts = [0, *accumulate(rows for _, rows in sessions)]
    return [
        Segment(b"%d" % i, at, at + rows, history) for i, (at, (history, rows)) in enumerate(zip(starts, sessions, strict=False))
    ]


def filled(config: ModelConfig, sessions: Sequence[tuple[int, int]], dtype: torch.dtype, scattered: bool = False) -> PagedCache:
    """A cache in which Sessions hold so many positions, the same ones wherever their pages lie."""
    cache = PagedCache(config, 256, 8, dtype)
    cache.add_block(0)
    for i, (history, rows) in enumerate(sessions):
        session, end = b"%d" % i, history + rows
        for at in range(8, end, 8) if scattered else ():
            assert cache.reserve(session, at) and cache.reserve(b"%d, %d" % (i, at), 8)
        assert cache.reserve(session, end)
        if history:
            keys, values = (drawn(history, config.num_kv_heads, config.head_dim, seed=s + i).to(BF16).to(dtype) for s in (3, 400))
            cache.append(0, Rows.of([Segment(session, 0, history, 0)]), keys, values)
    return cache


def attended(block: Block, cache: PagedCache, h: Tensor, pair: Pair, rows: Rows | None = None) -> Tensor:
    """`h` [R, H] and what attention adds to it; in torch's way but where the rows are laid out."""
    return h + block.attention.forward(block.norm(h, block.attention_norm, block.eps), rows or pair.rows, pair.angles, cache)


def off(answer: Tensor, exact: Tensor) -> float:
    return float((answer.to(FP64) - exact).square().mean().sqrt())
