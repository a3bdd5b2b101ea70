"""A row that is alone on a CPU has calls of its own for the halves of a Block: beside torch's way, and the truth in fp64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pairs import BF16, CONFIG, FP64, E, F, H, Pair, attended, drawn, filled, off, weight
from torch import Tensor

from swarm.model.alone import AttentionAlone
from swarm.model.block import Block, BlockCore
from swarm.model.cache import PagedCache
from swarm.model.experts import ExpertWeights, SharedExpert
from swarm.model.few import FewExperts
from swarm.model.native.halves import halves
from swarm.model.norm import layer_norm, rms_norm
from swarm.model.router import Router
from swarm.model.rows import Rows, Segment

pytestmark = pytest.mark.skipif(halves() is None, reason="this CPU has no AVX2, or no C compiler was there")


@pytest.fixture(params=["wide", "narrow"])
def wide(request: pytest.FixtureRequest) -> bool:
    """By the widest vectors that this CPU has, or by those that most have."""
    found = halves()
    assert found is not None
    if request.param == "wide" and not found.wide:
        pytest.skip("this CPU has no such vectors")
    return bool(request.param == "wide")


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("history", [0, 7, 15, 16, 100])
def test_attention_is_as_near_as_torch_s_own(form: str, history: int, wide: bool, threads: int) -> None:
    for window in (0, 24):
        config = replace(CONFIG, windows=(window,)) if window else CONFIG
        pair, h = Pair.of(form, [(history, 1)], config).narrowed(wide), drawn(1, H).to(BF16)
        exact = attended(pair.truth, pair.exact, h.to(FP64), pair)
        plain = attended(pair.here, pair.cache, h, pair)
        answer = pair.alone(h)
        assert off(answer, exact) <= 1.1 * off(plain, exact)
        assert torch.equal(answer, replace(pair, cache=filled(config, [(history, 1)], BF16)).alone(h)), "wherever pages are"


def with_experts(block: Block, h: Tensor) -> Tensor:
    return block._with_experts(h, None)


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("norm", [0.0, 1.0])
def test_experts_are_as_near_as_torch_s_own_and_counted(form: str, norm: float, wide: bool, threads: int) -> None:
    config = replace(CONFIG, top_k=3, experts=replace(CONFIG.experts, norm=norm))
    pair = Pair.of(form, config=config).narrowed(wide)
    plain = replace(pair.here, few=None)
    for seed in range(4):
        h = drawn(1, H, seed=seed).to(BF16)
        exact = with_experts(pair.truth, h.to(FP64))
        assert off(with_experts(pair.here, h), exact) <= 1.1 * off(with_experts(plain, h), exact)
    assert pair.here.moe.counts == [2 * n for n in pair.truth.moe.counts] and sum(pair.truth.moe.counts) == 12


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_a_dense_mlp_is_an_expert_that_all_rows_meet(form: str, rows: int, wide: bool) -> None:
    pair, h = Pair.of(form), drawn(rows, H).to(BF16)
    core = BlockCore(pair.here.attention_norm, pair.here.attention.wqkv, pair.here.attention.wo, pair.here.ffn_norm)
    shared = SharedExpert(ExpertWeights(weight(form, 2 * F, H)[0], weight(form, H, F)[0]))
    here = Block.of(replace(CONFIG, num_experts=0), 0, replace(core, shared=shared), {})
    plain = with_experts(replace(here, few=None), h)
    assert here.few is not None and here.moe.counts == []
    assert off(with_experts(replace(pair, here=here).narrowed(wide).here, h), plain.to(FP64)) < 0.004 * off(plain, torch.zeros(1))


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_how_its_experts_are_met_changes_no_bit(form: str, threads: int) -> None:
    pair = Pair.of(form)
    assert pair.here.few is not None
    some = replace(pair.here, few=replace(pair.here.few, alone=frozenset({1, 4, 6})))
    for seed in range(8):
        h = drawn(1, H, seed=seed).to(BF16)
        assert torch.equal(with_experts(pair.here, h), with_experts(some, h))
    assert sum(pair.here.moe.counts) == 2 * 2 * 8


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_a_block_in_one_call_answers_what_its_halves_do(form: str, wide: bool, threads: int) -> None:
    pair = Pair.of(form, [(40, 1)]).narrowed(wide)
    assert pair.here.few is not None
    apart = replace(pair.here, few=replace(pair.here.few, alone=frozenset({0})))
    for seed in range(4):
        h = drawn(1, H, seed=seed).to(BF16)
        assert torch.equal(*(each.forward(h, pair.laid, pair.angles, pair.cache) for each in (pair.here, apart)))
    assert sum(pair.here.moe.counts) == 2 * 2 * 4


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
    pair, h = Pair.of(form, [(20, 1)]).narrowed(wide), drawn(1, H).to(BF16)
    h[0, 5] = float(wrong)
    assert not pair.alone(h).isfinite().any()
    assert not with_experts(pair.here, h).isfinite().any()
    assert sum(pair.here.moe.counts) == 2, "and somebody is chosen all the same"


def test_it_is_what_computes_here_and_only_what_it_knows() -> None:
    pair, h = Pair.of("int4", [(20, 1)]), drawn(40, H).to(BF16)
    attention, router = pair.here.attention, Router(drawn(E, H).to(BF16), 2)
    alone, few = pair.here.attention_alone, pair.here.few
    assert alone is not None and few is not None and few.alone == few.local.keys() == set(range(E))
    assert alone.takes(h[:1]) and not alone.takes(h[:2]) and not alone.takes(h[:1].float())
    assert few.takes(h[:32]) and not few.takes(h[:33]) and not few.takes(h[:1].float()) and not few.takes(h.t()[:8])
    norm, other = pair.here.ffn_norm, PagedCache(CONFIG, 4, 8, BF16, kept_as="int8")
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
        assert FewExperts.of(unknown, rms_norm, norm, 1e-5, {}) is None
    other.add_block(0)
    assert other.reserve(b"s", 30) and other.laid(Rows.of([Segment(b"s", 0, 1, 0)])).sessions is None
