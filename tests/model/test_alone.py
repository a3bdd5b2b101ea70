"""A row that is alone on a CPU has calls of its own for the halves of a Block: beside torch's way, and the truth in fp64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from swarm.bits import Form
from swarm.config import ModelConfig
from swarm.model.alone import AttentionAlone, ExpertsAlone
from swarm.model.block import Block, BlockCore
from swarm.model.cache import PagedCache
from swarm.model.experts import ExpertWeights, LocalExperts, SharedExpert
from swarm.model.native.halves import halves
from swarm.model.norm import layer_norm, rms_norm
from swarm.model.product import Weight
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.matrix import matrix_of
from swarm.model.rope import Angles
from swarm.model.router import Router
from swarm.model.rows import Rows, Segment
from swarm.weights.quantize import quantize

pytestmark = pytest.mark.skipif(halves() is None, reason="this CPU has no AVX2, or no C compiler was there")
H, F, E = 256, 192, 8
CONFIG = ModelConfig(
    architecture="MixtralForCausalLM", hidden=H, ffn=F, num_blocks=1, num_heads=6, num_kv_heads=2, head_dim=64, num_experts=E,
    top_k=2, vocab=64, max_positions=512, norm_eps=1e-5, rope_theta=1e4, tied_head=False, dtype="bf16", bos_id=1, eos_ids=(2,),
)  # fmt: skip
BF16, FP64 = torch.bfloat16, torch.float64


@pytest.fixture(params=["wide", "narrow"])
def wide(request: pytest.FixtureRequest) -> bool:
    """By the widest vectors that this CPU has, or by those that most have."""
    found = halves()
    assert found is not None
    if request.param == "wide" and not found.wide:
        pytest.skip("this CPU has no such vectors")
    return bool(request.param == "wide")


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


@dataclass
class Pair:
    """One Block as it computes, and the same one in fp64, both with the same history in pages that lie apart."""

    here: Block
    truth: Block
    cache: PagedCache
    exact: PagedCache
    rows: Rows
    angles: Angles

    @classmethod
    def of(cls, form: str, history: int = 0, config: ModelConfig = CONFIG) -> Pair:
        names = (("wqkv", 640, H), ("wo", H, 384))
        attention = {name: weight(form, rows, columns) for name, rows, columns in names}
        experts = [(weight(form, 2 * F, H, e), weight(form, H, F, e)) for e in range(E)]
        norms, router = [(1 + drawn(H, seed=s) / 8).to(BF16) for s in (1, 2)], drawn(E, H).to(BF16)

        def block(of: int, dtype: torch.dtype) -> Block:
            wqkv, wo = attention["wqkv"][of], attention["wo"][of]
            core = BlockCore(norms[0].to(dtype), wqkv, wo, norms[1].to(dtype), router.to(dtype))
            local = LocalExperts({(0, e): ExpertWeights(first[of], second[of]) for e, (first, second) in enumerate(experts)})
            return Block.of(config, 0, core, dict.fromkeys(range(E), local))

        rows = Rows.of([Segment(b"s", 0, 1, history)])
        angles = Angles.of(rows.positions, 64, 1e4)
        caches = filled(config, history, BF16, scattered=True), filled(config, history, FP64)
        return cls(block(0, BF16), block(1, FP64), *caches, rows, angles)


def filled(config: ModelConfig, history: int, dtype: torch.dtype, scattered: bool = False) -> PagedCache:
    """A cache in which a Session holds so many positions, the same ones wherever its pages lie."""
    cache = PagedCache(config, 128, 8, dtype)
    cache.add_block(0)
    for at in range(8, history + 9, 8) if scattered else [history + 1]:
        assert cache.reserve(b"s", at) and (not scattered or cache.reserve(str(at).encode(), 8))
    cache.reserve(b"s", history + 1)
    if history:
        before = Rows.of([Segment(b"s", 0, history, 0)])
        keys, values = (drawn(history, config.num_kv_heads, 64, seed=s).to(BF16).to(dtype) for s in (3, 4))
        cache.append(0, before, keys, values)
    return cache


def off(answer: Tensor, exact: Tensor) -> float:
    return float((answer.to(FP64) - exact).square().mean().sqrt())


def attended(block: Block, cache: PagedCache, h: Tensor, pair: Pair) -> Tensor:
    place = cache.place(0, pair.rows) if block.attention_alone else None
    return block._with_attention(h, pair.rows, pair.angles, cache, place)


def narrowed(block: Block, wide: bool) -> Block:
    assert block.attention_alone is not None and block.experts_alone is not None
    calls = replace(block.attention_alone.calls, wide=wide)
    return replace(
        block, attention_alone=replace(block.attention_alone, calls=calls), experts_alone=replace(block.experts_alone, calls=calls)
    )


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("history", [0, 7, 100])
def test_attention_is_as_near_as_torch_s_own(form: str, history: int, wide: bool, threads: int) -> None:
    for window in (0, 24):
        config = replace(CONFIG, windows=(window,)) if window else CONFIG
        pair, h = Pair.of(form, history, config), drawn(1, H).to(BF16)
        exact = attended(pair.truth, pair.exact, h.to(FP64), pair)
        plain = attended(replace(pair.here, attention_alone=None), pair.cache, h, pair)
        answer = attended(narrowed(pair.here, wide), pair.cache, h, pair)
        assert off(answer, exact) <= 1.1 * off(plain, exact)
        assert torch.equal(answer, attended(narrowed(pair.here, wide), filled(config, history, BF16), h, pair)), (
            "wherever pages are"
        )


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("norm", [0.0, 1.0])
def test_experts_are_as_near_as_torch_s_own_and_counted(form: str, norm: float, wide: bool, threads: int) -> None:
    config = replace(CONFIG, top_k=3, experts=replace(CONFIG.experts, norm=norm))
    pair = Pair.of(form, 0, config)
    here, plain = narrowed(pair.here, wide), replace(pair.here, experts_alone=None)
    for seed in range(4):
        h = drawn(1, H, seed=seed).to(BF16)
        exact = pair.truth._with_experts(h.to(FP64))
        assert off(here._with_experts(h), exact) <= 1.1 * off(plain._with_experts(h), exact)
    assert pair.here.moe.counts == [2 * n for n in pair.truth.moe.counts] and sum(pair.truth.moe.counts) == 12


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_a_dense_mlp_is_an_expert_that_all_rows_meet(form: str, wide: bool) -> None:
    pair, h = Pair.of(form), drawn(1, H).to(BF16)
    core = BlockCore(*[pair.here.attention_norm, pair.here.attention.wqkv, pair.here.attention.wo, pair.here.ffn_norm])
    shared = SharedExpert(ExpertWeights(weight(form, 2 * F, H)[0], weight(form, H, F)[0]))
    block = Block.of(replace(CONFIG, num_experts=0), 0, replace(core, shared=shared), {})
    plain = replace(block, experts_alone=None)._with_experts(h)
    assert off(narrowed(block, wide)._with_experts(h), plain.to(FP64)) < 0.004 * off(plain, torch.zeros(1))


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_where_experts_are_changes_no_bit(form: str, threads: int) -> None:
    pair = Pair.of(form)
    assert pair.here.experts_alone is not None
    some = replace(pair.here, experts_alone=replace(pair.here.experts_alone, here=frozenset({1, 4, 6})))
    for seed in range(8):
        h = drawn(1, H, seed=seed).to(BF16)
        assert torch.equal(pair.here._with_experts(h), some._with_experts(h))
    assert sum(pair.here.moe.counts) == 2 * 2 * 8


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_a_block_in_one_call_answers_what_its_halves_do(form: str, wide: bool, threads: int) -> None:
    pair = Pair.of(form, 40)
    block = narrowed(pair.here, wide)
    assert block.experts_alone is not None
    apart = replace(block, experts_alone=replace(block.experts_alone, all_here=False))
    for seed in range(4):
        h = drawn(1, H, seed=seed).to(BF16)
        assert torch.equal(*(each.forward(h, pair.rows, pair.angles, pair.cache) for each in (block, apart)))
    assert sum(block.moe.counts) == 2 * 2 * 4


@pytest.mark.parametrize("rows", [1, 3, 16, 100])
def test_a_norm_of_any_rows_is_as_near_as_torch_s_and_of_each_row_what_it_is_alone(rows: int, threads: int) -> None:
    x, factors = drawn(rows, H).to(BF16) * 7, drawn(H).to(BF16)
    exact = torch.nn.functional.rms_norm(x.to(FP64), (H,), factors.to(FP64), 1e-5)
    answer = rms_norm(x, factors, 1e-5)
    assert off(answer, exact) <= 1.01 * off(torch.nn.functional.rms_norm(x, (H,), factors, 1e-5), exact)
    assert torch.equal(answer, torch.cat([rms_norm(x[r : r + 1], factors, 1e-5) for r in range(rows)]))
    x[rows // 2, 3] = float("nan")
    assert rms_norm(x, factors, 1e-5).isfinite().all(1).tolist() == [r != rows // 2 for r in range(rows)]


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_what_is_no_number_is_noticed(form: str, wrong: str, wide: bool) -> None:
    pair, h = Pair.of(form, 20), drawn(1, H).to(BF16)
    h[0, 5] = float(wrong)
    block = narrowed(pair.here, wide)
    assert not attended(block, pair.cache, h, pair).isfinite().any()
    assert not block._with_experts(h).isfinite().any()
    assert sum(block.moe.counts) == 2, "and somebody is chosen all the same"


def test_it_is_what_computes_here_and_only_what_it_knows() -> None:
    pair, h = Pair.of("int4", 20), drawn(2, H).to(BF16)
    block, attention, router = pair.here, pair.here.attention, Router(drawn(E, H).to(BF16), 2)
    alone, experts = block.attention_alone, block.experts_alone
    assert alone is not None and experts is not None and experts.here == frozenset(range(E))
    assert alone.takes(h[:1]) and not alone.takes(h) and not alone.takes(h[:1].float())
    place = pair.cache.place(0, pair.rows)
    assert place is not None
    assert torch.equal(attended(block, pair.cache, h[:1], pair), alone.forward(h[:1], place, pair.angles))
    norm, other = block.ffn_norm, PagedCache(CONFIG, 4, 8, BF16, kept_as="int8")
    changes: tuple[dict[str, Any], ...] = (
        {"bo": norm},
        {"bqkv": norm},
        {"sinks": norm},
        {"clip": 2.0},
        {"qk_norm": norm},
        {"wo": norm.float()},
    )
    assert not any(AttentionAlone.of(replace(attention, **change), rms_norm, norm, 1e-5) for change in changes)
    assert AttentionAlone.of(attention, layer_norm, norm, 1e-5) is None
    assert not AttentionAlone.of(replace(attention, head_dim=80), rms_norm, norm, 1e-5)
    for unknown in (replace(router, bias=norm[:E]), replace(router, norm=2.0), Router(drawn(6, H).to(BF16), 2)):
        assert ExpertsAlone.of(unknown, rms_norm, norm, 1e-5, {}) is None
    other.add_block(0)
    assert other.reserve(b"s", 30) and other.place(0, Rows.of([Segment(b"s", 0, 1, 0)])) is None
