"""What is told of a row's logits in one call, beside 64-bit floats and a sort."""

from __future__ import annotations

import ctypes
import math
import mmap
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swarm.model.native.ranked import Ranked, Ranks, ranked

pytestmark = pytest.mark.skipif(ranked() is None, reason="this CPU has no AVX2, or no C compiler was there")
VOCABULARIES = (1, 3, 15, 16, 17, 31, 32, 33, 100, 1023, 1024, 1025, 32000, 50257)
TEMPERATURES = (1.0, 0.7, 0.001, 100.0)


@pytest.fixture(params=[False, True], ids=["avx2", "avx512"])
def told(request: pytest.FixtureRequest) -> Ranked:
    found = ranked()
    assert found is not None
    if request.param and not found.wide:
        pytest.skip("this CPU has no AVX-512")
    return replace(found, wide=request.param)


def drawn(rows: int, vocab: int, scale: float = 4.0) -> Tensor:
    return (torch.randn(rows, vocab, generator=torch.Generator().manual_seed(vocab)) * scale).to(torch.bfloat16)


def best(row: Tensor, k: int) -> list[int]:
    """By descending logit, equal ones by ascending id."""
    ids: list[int] = torch.sort(row, descending=True, stable=True).indices[:k].tolist()
    return ids


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_the_best_are_those_of_a_sort_and_sums_as_near_as_fp32_holds_them(vocab: int, told: Ranked, threads: int) -> None:
    for scale in (0.0, 0.05, 4.0, 60.0):
        logits = drawn(len(TEMPERATURES), vocab, scale)
        for k in {0, 1, min(64, vocab), min(1024, vocab)}:
            for row, t, ranks in zip(logits, TEMPERATURES, told.of(logits, [(k, t) for t in TEMPERATURES]), strict=True):
                assert ranks.ids == best(row, k) and ranks.logits == row[ranks.ids].tolist()
                exact = [float(torch.logsumexp(row.double() / over, 0)) for over in (1.0, t)]
                assert math.isclose(ranks.logsumexp, exact[0], rel_tol=1e-7, abs_tol=1e-6), (scale, k)
                assert math.isclose(ranks.logsumexp_t, exact[1], rel_tol=1e-7, abs_tol=1e-6), (scale, k, t)


def test_a_row_is_told_the_same_beside_any_others_and_on_any_threads(told: Ranked, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, wanted = drawn(9, 1000), [(k, 0.5 + k / 10) for k in range(9)]
    together, before = told.of(logits, wanted), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert told.of(logits, wanted) == together
            assert [told.of(logits[i : i + 1], wanted[i : i + 1])[0] for i in range(9)] == together
    finally:
        torch.set_num_threads(before)


def test_both_kinds_of_vectors_tell_the_same(threads: int) -> None:
    found = ranked()
    assert found is not None
    if not found.wide:
        pytest.skip("this CPU has one kind")
    logits, wanted = drawn(3, 5003), [(64, 0.7)] * 3
    assert found.of(logits, wanted) == replace(found, wide=False).of(logits, wanted)


@pytest.mark.parametrize("vocab", [7, 32, 1000])
def test_infinities_and_what_is_no_number(vocab: int, told: Ranked) -> None:
    def of(at: dict[int, float], fill: float | None = None) -> Ranks:
        row = drawn(1, vocab) if fill is None else torch.full((1, vocab), fill, dtype=torch.bfloat16)
        for i, value in at.items():
            row[0, i] = value
        return told.of(row, [(5, 0.7)])[0]

    some = of({i: -math.inf for i in range(vocab) if i not in (2, vocab - 1)})
    assert some.ids[:2] in ([2, vocab - 1], [vocab - 1, 2]) and some.ids[2:] == [0, 1, 3] and math.isfinite(some.logsumexp)
    minus_nothing = of({4: -0.0}, 0.0)
    assert minus_nothing.ids == [0, 1, 2, 3, 4] and math.isclose(minus_nothing.logsumexp, math.log(vocab), rel_tol=1e-6)
    for broken in (of({3: math.inf}), of({3: math.nan}), of({vocab - 1: -math.nan}), of({}, -math.inf), of({}, math.nan)):
        assert not math.isfinite(broken.logsumexp) and not math.isfinite(broken.logsumexp_t)
        assert len(set(broken.ids)) == 5 and all(0 <= i < vocab for i in broken.ids)


def test_temperatures_next_to_nothing_and_beyond_all_bounds(told: Ranked) -> None:
    logits = drawn(3, 100)
    for row, ranks in zip(logits, told.of(logits, [(1, 1e-40), (1, 1e-30), (1, 1e30)]), strict=True):
        assert math.isclose(ranks.logsumexp, float(torch.logsumexp(row.double(), 0)), rel_tol=1e-6)
    cold, cool, hot = (ranks.logsumexp_t for ranks in told.of(logits, [(1, 1e-40), (1, 1e-30), (1, 1e30)]))
    largest = logits.double().amax(1).tolist()
    assert math.isclose(cold, largest[0] / 1e-40) and math.isclose(cool, largest[1] / 1e-30)
    assert math.isclose(hot, math.log(100), rel_tol=1e-6)


@pytest.mark.parametrize("vocab", [5, 33, 4096 + 15])
def test_it_reads_nothing_behind_a_row(vocab: int, told: Ranked) -> None:
    size = 2 * vocab
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + mmap.PAGESIZE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    behind = ctypes.c_void_p(whole.data_ptr() + room)
    libc = ctypes.CDLL(None)
    assert libc.mprotect(behind, mmap.PAGESIZE, 0) == 0
    row = whole[room - size : room].view(torch.bfloat16).view(1, vocab)
    row.copy_(drawn(1, vocab))
    assert told.of(row, [(3, 0.7)]) == told.of(drawn(1, vocab), [(3, 0.7)])
    assert libc.mprotect(behind, mmap.PAGESIZE, mmap.PROT_READ) == 0


def test_what_is_taken(told: Ranked) -> None:
    assert told.takes(drawn(2, 40)) and not told.takes(drawn(2, 40).float()) and not told.takes(drawn(40, 2).T)
