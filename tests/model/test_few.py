"""What is between the products of a Block for a few rows: beside torch's way, the truth in fp64, and the same row alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from pairs import BF16, CONFIG, FP64, E, H, Pair, attended, drawn, filled, off, segments
from torch import Tensor

from swarm.config import ModelConfig
from swarm.model.block import Block, BlockCore
from swarm.model.cache import FEW_OF_A_SESSION, PagedCache
from swarm.model.experts import ExpertWeights, LocalExperts
from swarm.model.few import FewExperts
from swarm.model.native.halves import Halves, Heads, halves
from swarm.model.norm import rms_norm
from swarm.model.rope import Angles
from swarm.model.router import Router
from swarm.model.rows import Rows, Segment

pytestmark = pytest.mark.skipif(halves() is None, reason="this CPU has no AVX2, or no C compiler was there")
SESSIONS = ((100, 1), (0, 1), (7, 3), (40, 8), (15, 1), (16, 2), (0, 5))
"""Positions that are there, and rows behind them: single ones and drafts."""
ROWS = sum(rows for _, rows in SESSIONS)
GQA, MHA, WIDE_HEADS = (6, 2, 64), (2, 2, 96), (5, 1, 128)


@pytest.fixture(params=["wide", "narrow"])
def calls(request: pytest.FixtureRequest) -> Halves:
    """By the widest vectors that this CPU has, and by those that most have."""
    found = halves()
    assert found is not None
    if request.param == "wide" and not found.wide:
        pytest.skip("this CPU has no such vectors")
    return replace(found, wide=request.param == "wide")


@dataclass(frozen=True)
class Asked:
    """Rows of some Sessions, and what lies behind them."""

    config: ModelConfig
    cache: PagedCache
    qkv: Tensor
    rows: Rows
    angles: Angles

    @classmethod
    def of(cls, heads: tuple[int, int, int], sessions: Any = SESSIONS, scattered: bool = True) -> Asked:
        num, kv, dim = heads
        config = replace(CONFIG, num_heads=num, num_kv_heads=kv, head_dim=dim)
        rows = Rows.of(segments(sessions))
        qkv = drawn(rows.positions.shape[0], num + 2 * kv, dim).to(BF16)
        return cls(config, filled(config, sessions, BF16, scattered), qkv, rows, Angles.of(rows.positions, dim, 1e4))

    def by(self, calls: Halves, window: int = 0, rows: Rows | None = None) -> Tensor:
        """[R, NH, D]; of the rows that are not among `rows` nothing that counts."""
        c, laid = self.config, self.cache.laid(rows or self.rows)
        places, turning = self.cache.places(0, laid), c.num_heads + c.num_kv_heads
        assert places is not None and not laid.others
        heads = Heads((c.num_heads, c.num_kv_heads, c.head_dim, window), c.head_dim**-0.5)
        return calls.attend(heads, self.qkv[:, :turning], self.qkv[:, turning:], places, self.angles.cos, self.angles.sin)

    def exactly(self, window: int = 0, dtype: torch.dtype = FP64) -> Tensor:
        """By torch's operations in that dtype, of what bf16 holds of keys, values and queries that are turned."""
        c, turning = self.config, self.config.num_heads + self.config.num_kv_heads
        cache = filled(c, [(s.position, s.end - s.start) for s in self.rows.segments], dtype)
        qk = self.angles.rotate(self.qkv[:, :turning]).to(dtype)
        cache.append(0, self.rows, qk[:, c.num_heads :], self.qkv[:, turning:].to(dtype))
        return cache.attend(0, self.rows, qk[:, : c.num_heads], window)


@pytest.mark.parametrize("heads", [GQA, MHA, WIDE_HEADS])
@pytest.mark.parametrize("window", [0, 5, 24, 44])
def test_rows_of_several_sessions_see_what_torch_s_way_does(heads: Any, window: int, calls: Halves, threads: int) -> None:
    asked = Asked.of(heads)
    exact = asked.exactly(window)
    assert off(asked.by(calls, window), exact) <= 1.1 * off(asked.exactly(window, BF16), exact)
    for s in asked.rows.segments:
        assert off(asked.by(calls, window)[s.start : s.end], exact[s.start : s.end]) < 0.005, s


@pytest.mark.parametrize("heads", [GQA, MHA])
@pytest.mark.parametrize("window", [0, 5, 44])
def test_a_row_sees_to_the_bit_what_it_sees_alone_and_wherever_pages_are(
    heads: Any, window: int, calls: Halves, threads: int
) -> None:
    together = Asked.of(heads).by(calls, window)
    for scattered in (True, False):
        asked = Asked.of(heads, scattered=scattered)
        for s in asked.rows.segments:
            for row in range(s.start, s.end):
                position = s.position + row - s.start
                alone = Rows.of([Segment(s.session, 0, 1, position)])
                angles = Angles(asked.angles.cos[row : row + 1], asked.angles.sin[row : row + 1])
                one = replace(asked, qkv=asked.qkv[row : row + 1], rows=alone, angles=angles)
                assert torch.equal(one.by(calls, window)[0], together[row]), (s, row)


def test_a_row_that_is_no_number_spoils_no_row_before_it_and_no_other_session(calls: Halves) -> None:
    want, asked = Asked.of(GQA).by(calls), Asked.of(GQA)
    wrong = asked.rows.segments[3].start + 4  # of 8
    asked.qkv[wrong] = float("nan")
    found = asked.by(calls)
    spoiled = range(wrong, asked.rows.segments[3].end)
    assert [not found[row].isfinite().any() for row in range(ROWS)] == [row in spoiled for row in range(ROWS)]
    assert all(torch.equal(found[row], want[row]) for row in range(ROWS) if row not in spoiled)


def test_sessions_that_share_pages_see_what_they_would_of_their_own(calls: Halves) -> None:
    config, dim = CONFIG, CONFIG.head_dim
    keys, values = (drawn(20, config.num_kv_heads, dim, seed=s).to(BF16) for s in (3, 4))
    hashes = list(range(1000, 1021))
    shared, apart = (PagedCache(config, 64, 8, BF16) for _ in range(2))
    for cache in (shared, apart):
        cache.add_block(0)
        cache.reserve(b"a", 30)
        cache.append(0, Rows.of([Segment(b"a", 0, 20, 0)]), keys, values)
    shared.know(b"a", 0, hashes[:17], [0])
    assert shared.open(b"b", 30, hashes, [0]) == 16
    apart.reserve(b"b", 30)
    shared.append(0, Rows.of([Segment(b"b", 0, 4, 16)]), keys[16:], values[16:])
    apart.append(0, Rows.of([Segment(b"b", 0, 20, 0)]), keys, values)
    assert shared.free_pages > apart.free_pages
    rows = Rows.of([Segment(b"b", 0, 2, 20), Segment(b"a", 2, 3, 20)])
    qkv, angles = drawn(3, 10, dim).to(BF16), Angles.of(rows.positions, dim, 1e4)
    assert torch.equal(*(Asked(config, cache, qkv, rows, angles).by(calls) for cache in (shared, apart)))


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("sessions", [SESSIONS, ((30, 1),), ((30, 1), (0, 1)), ((50, 4),), ((9, 1),) * 16])
def test_a_block_is_as_near_as_torch_s_own_and_counted(form: str, sessions: Any, threads: int) -> None:
    pair, rows, errors = Pair.of(form, sessions), sum(rows for _, rows in sessions), [0.0, 0.0]
    for seed in range(8):
        h = drawn(rows, H, seed=seed).to(BF16)
        seen = attended(pair.truth, pair.exact, h.to(FP64), pair)
        exact = torch.cat([pair.truth._with_experts(row, None) for row in seen.split(1)])
        plain = replace(pair.here, few=None).forward(h, pair.rows, pair.angles, pair.cache)
        for i, answer in enumerate((pair.here.forward(h, pair.laid, pair.angles, pair.cache), plain)):
            errors[i] += off(answer, exact)
    assert errors[0] <= 1.1 * errors[1]
    assert sum(pair.truth.moe.counts) == 8 * 2 * rows
    assert all(abs(n - 2 * m) <= 2 for n, m in zip(pair.here.moe.counts, pair.truth.moe.counts, strict=True)), "but for a near tie"


def test_rows_of_a_prompt_beside_few_are_answered_as_ever(threads: int) -> None:
    long = FEW_OF_A_SESSION + 1
    sessions = ((100, 1), (5, long), (7, 3), (0, 2 * long), (40, 1))
    pair = Pair.of("bf16", sessions)
    h, laid = drawn(sum(rows for _, rows in sessions), H).to(BF16), pair.laid
    assert [s.end - s.start for s in laid.others] == [long, 2 * long]
    found, plain = attended(pair.here, pair.cache, h, pair, laid), attended(pair.here, pair.cache, h, pair)
    exact = attended(pair.truth, pair.exact, h.to(FP64), pair)
    assert off(found, exact) <= 1.1 * off(plain, exact)
    for s in laid.others:
        assert torch.equal(found[s.start : s.end], plain[s.start : s.end])


@pytest.mark.parametrize("norm", [0.0, 1.0])
@pytest.mark.parametrize("experts, width", [(4, 1), (8, 3), (128, 8)])
@pytest.mark.parametrize("rows", [1, 2, 7, 32])
def test_rows_are_given_to_the_experts_that_torch_s_way_gives_them_to(
    rows: int, experts: int, width: int, norm: float, calls: Halves, threads: int
) -> None:
    router, weight = Router((drawn(experts, H) / 8).to(BF16), width, norm), (1 + drawn(H) / 8).to(BF16)
    h, added = drawn(rows, H, seed=7).to(BF16), drawn(H, rows).to(BF16).t()  # as a product may put out its rows
    found = FewExperts.of(router, rms_norm, weight, 1e-5, {})
    assert found is not None
    routed = replace(found, calls=calls).route(h, added)
    assert torch.equal(routed.h, h + added) and torch.equal(routed.x, calls.norm(h + added, weight, 1e-5))
    want = replace(router, weight=router.weight.float()).route(routed.x.float())
    assert routed.experts == list(want)
    indices, weights = routed.which.split(routed.counts), routed.weight.split(routed.counts)
    for share, index, its, x in zip(want.values(), indices, weights, routed.parts(), strict=True):
        assert torch.equal(index, share.index) and torch.equal(x, routed.x[index])
        torch.testing.assert_close(its, share.weight, atol=1e-6, rtol=1e-5)


def test_a_row_that_is_no_number_is_given_to_somebody_and_changes_no_other(calls: Halves) -> None:
    router, weight, h = Router(drawn(E, H).to(BF16), 2), drawn(H).to(BF16), drawn(9, H).to(BF16)
    found = FewExperts.of(router, rms_norm, weight, 1e-5, {})
    assert found is not None
    want, h[4, 3] = replace(found, calls=calls).route(h, None), float("nan")
    routed = replace(found, calls=calls).route(h, None)
    assert sum(routed.counts) == 18 and routed.which.bincount().tolist() == [2] * 9
    both = [zip(each.which.tolist(), each.weight.flatten().tolist(), strict=True) for each in (want, routed)]
    kept = [[(row, weight) for row, weight in each if row != 4] for each in both]
    assert kept[0] == kept[1]


@dataclass
class Far:
    """Experts elsewhere, which may be copies."""

    weights: Mapping[tuple[int, int], ExpertWeights]
    asked: list[int] = field(default_factory=list)

    def ask(self, block: int, hidden: Tensor, rows: Mapping[int, Tensor]) -> Callable[[], dict[int, Tensor]]:
        self.asked += rows
        return LocalExperts(self.weights).ask(block, hidden.clone(), rows)

    def willing(self) -> bool:
        return True


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_where_experts_are_changes_no_bit_of_few_rows(form: str, threads: int) -> None:
    pair = Pair.of(form)
    weights = {(0, e): its for e, its in pair.here.few.local.items()} if pair.here.few else {}
    local, far, copy = LocalExperts(weights), Far(weights), Far(weights)
    here, router = pair.here, pair.here.moe.router
    assert router is not None
    core = BlockCore(here.attention_norm, here.attention.wqkv, here.attention.wo, here.ffn_norm, router.weight)
    elsewhere = Block.of(CONFIG, 0, core, {e: far if e in (1, 4, 6) else local for e in range(E)})
    copied = Block.of(CONFIG, 0, core, dict.fromkeys(range(E), local), copies=dict.fromkeys(range(E), copy))
    for rows in (1, 2, 5, 16, 32):
        h, added = drawn(rows, H).to(BF16), drawn(rows, H, seed=1).to(BF16)
        want = pair.here._with_experts(h, added)
        assert torch.equal(want, elsewhere._with_experts(h, added)) and torch.equal(want, copied._with_experts(h, added))
        assert torch.equal(want, pair.here._with_experts(h + added, None))
    assert set(far.asked) == {1, 4, 6} and copy.asked
    assert elsewhere.moe.counts == copied.moe.counts == [n // 2 for n in pair.here.moe.counts]
