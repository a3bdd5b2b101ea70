from __future__ import annotations

import dataclasses
import math
import random
import time
from array import array
from collections import Counter
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.client.sampling import Candidates, Choice, NeedsRow, Sampling, choose, needed_k, needs_row
from swarm.client.uniform import splitmix64, uniform
from swarm.errors import ModelError, UsageError


def fp32(value: float) -> float:
    return array("f", [value])[0]


def logsumexp(row: Sequence[float], temperature: float) -> float:
    return fp32(math.log(math.fsum(math.exp(x / (temperature or 1.0)) for x in row)))


def answered(row: Sequence[float], k: int, temperature: float, whole: bool = False) -> Candidates:
    """What a last Stage answers, with equal logits in no particular order."""
    best = sorted(range(len(row)), key=lambda i: (-row[i], -i))[:k]
    return Candidates(
        ids=tuple(best),
        logits=tuple(row[i] for i in best),
        logsumexp=logsumexp(row, 1.0),
        logsumexp_t=logsumexp(row, temperature),
        row=array("f", row) if whole else None,
    )


def drawn(row: Sequence[float], sampling: Sampling, position: int, k: int = 4, history: Collection[int] = ()) -> Choice:
    """As the Decoder does: from the Candidates, and from the whole row where they do not decide."""
    choice = choose(answered(row, k, sampling.temperature), sampling, position, history)
    if isinstance(choice, NeedsRow):
        choice = choose(answered(row, k, sampling.temperature, whole=True), sampling, position, history)
    assert isinstance(choice, Choice)
    return choice


ROWS = st.lists(st.one_of(st.floats(-12, 12, width=32), st.sampled_from([0.0, 1.0, 1.5])), min_size=2, max_size=24)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.1, 0.5, 0.9, 0.999]),
    top_k=st.sampled_from([0, 1, 2, 5, 40]),
    seed=st.integers(0, 2**64 - 1),
)


def test_splitmix64_is_the_published_one() -> None:
    # The first outputs for the state 1234567, as Rosetta Code and the reference C code give them.
    known = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)
    assert tuple(splitmix64(1234567 + (n + 1) * 0x9E3779B97F4A7C15) for n in range(5)) == known


def test_draws_are_the_same_numbers_for_ever() -> None:
    known = [0.6524484863740322, 0.7012121095215252, 0.36818951565166946, 0.25890696956169235]
    assert [uniform(0, 0), uniform(0, 1), uniform(1, 0), uniform(2**64 - 1, 4095)] == known


@given(seed=st.integers(0, 2**64 - 1), position=st.integers(0, 2**32))
def test_draws_are_at_least_0_and_below_1(seed: int, position: int) -> None:
    assert 0.0 <= uniform(seed, position) < 1.0


def test_draws_of_neighbouring_seeds_and_positions_do_not_resemble_each_other() -> None:
    side = [[uniform(seed, position) for position in range(200)] for seed in range(200)]
    assert len({draw for line in side for draw in line}) == 200 * 200
    counts = Counter(int(draw * 64) for line in side for draw in line)
    assert chi_square(counts, [1 / 64] * 64, 200 * 200) < critical(63)


def chi_square(counts: Counter[int], expected: Sequence[float], total: int) -> float:
    return sum((counts[i] - total * share) ** 2 / (total * share) for i, share in enumerate(expected))


def critical(freedom: int, z: float = 3.7) -> float:
    """The chi-square value that chance exceeds once in about 10,000 (Wilson and Hilferty 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_follow_the_softmax_exactly(temperature: float) -> None:
    row = [fp32(x) for x in (2.0, 1.5, 0.0, -0.5, 1.0, 1.0, -2.0, 0.3)]
    shares = [math.exp(x / temperature - logsumexp(row, temperature)) for x in row]
    counts = Counter(drawn(row, Sampling(temperature, seed=11), position).token for position in range(20_000))
    assert chi_square(counts, shares, 20_000) < critical(len(row) - 1)


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.8), (5, 0.7)])
def test_draws_follow_the_softmax_over_what_is_kept(top_k: int, top_p: float) -> None:
    row = [fp32(x) for x in (2.0, 1.5, 0.0, -0.5, 1.0, 0.9, -2.0, 0.3)]
    shares = [math.exp(x) for x in row]
    kept = transformers_keeps(row, top_k, top_p)
    whole = sum(shares[i] for i in kept)
    counts = Counter(drawn(row, Sampling(1.0, top_p, top_k, seed=5), position).token for position in range(10_000))
    assert set(counts) == kept
    ordered = sorted(kept)
    assert chi_square(
        Counter({n: counts[i] for n, i in enumerate(ordered)}), [shares[i] / whole for i in ordered], 10_000
    ) < critical(len(kept) - 1)


def transformers_keeps(row: Sequence[float], top_k: int, top_p: float) -> set[int]:
    """TopKLogitsWarper, then TopPLogitsWarper, on rows without equal logits (they sum from the least likely up)."""
    order = sorted(range(len(row)), key=lambda i: row[i])
    order = order[-top_k:] if top_k else order
    total = math.fsum(math.exp(row[i]) for i in order)
    below, removed = 0.0, set()
    for i in order[:-1]:
        below += math.exp(row[i]) / total
        if below <= 1 - top_p:
            removed.add(i)
    return set(order) - removed


@given(row=ROWS, sampling=SAMPLINGS, position=st.integers(0, 4096), k=st.integers(1, 30))
@settings(max_examples=400)
def test_candidates_never_decide_otherwise_than_the_whole_row(row: list[float], sampling: Sampling, position: int, k: int) -> None:
    few = choose(answered(row, min(k, len(row)), sampling.temperature), sampling, position)
    whole = choose(answered(row, min(k, len(row)), sampling.temperature, whole=True), sampling, position)
    assert isinstance(whole, Choice)
    if k == 1 and sampling.temperature == 0.0:
        assert isinstance(few, Choice) and row[few.token] == row[whole.token]
    else:
        assert few == whole or isinstance(few, NeedsRow)


@given(row=ROWS, sampling=SAMPLINGS, position=st.integers(0, 4096))
def test_a_replay_draws_the_same_token_whatever_was_drawn_between(row: list[float], sampling: Sampling, position: int) -> None:
    first = drawn(row, sampling, position, k=3)
    for other in range(5):
        drawn(row, sampling, other, k=3)
    assert drawn(row, sampling, position, k=7) == first


@given(row=ROWS)
def test_temperature_0_takes_the_best_and_of_equals_the_lowest_id(row: list[float]) -> None:
    choice = drawn(row, Sampling(0.0), 9, k=2)
    assert choice.token == row.index(max(row))
    assert choice.logprob == row[choice.token] - logsumexp(row, 1.0)


def test_equals_at_the_end_of_the_candidates_ask_for_the_row() -> None:
    row = [1.0, 3.0, 3.0, 3.0]
    assert isinstance(choose(answered(row, 2, 0.0), Sampling(0.0), 0), NeedsRow)
    assert drawn(row, Sampling(0.0), 0, k=2).token == 1


def test_logprob_is_that_of_the_model_itself() -> None:
    row = [0.0, 2.0, -1.0, 0.5]
    for sampling in (Sampling(0.3), Sampling(2.0, top_k=2), Sampling(1.0, repetition_penalty=3.0)):
        choice = drawn(row, sampling, 3, history={1})
        assert choice.logprob == pytest.approx(row[choice.token] - logsumexp(row, 1.0))


def test_candidates_that_hold_too_little_of_the_nucleus_ask_for_the_row() -> None:
    flat = [0.001 * i for i in range(100)]
    assert isinstance(choose(answered(flat, 64, 1.0), Sampling(1.0, top_p=0.99), 0), NeedsRow)
    assert isinstance(choose(answered(flat, 10, 1.0), Sampling(1.0, top_k=40), 0), NeedsRow)


@given(row=ROWS, history=st.sets(st.integers(0, 30)), penalty=st.sampled_from([0.5, 1.3, 5.0]))
def test_the_repetition_penalty_is_transformers(row: list[float], history: set[int], penalty: float) -> None:
    sampling = Sampling(0.0, repetition_penalty=penalty)
    assert needs_row(sampling)
    assert isinstance(choose(answered(row, 2, 0.0), sampling, 0, history), NeedsRow)
    scores = [x if i not in history else x * penalty if x < 0 else x / penalty for i, x in enumerate(row)]
    assert drawn(row, sampling, 0, history=history).token == scores.index(max(scores))


def test_a_penalised_draw_follows_the_penalised_softmax() -> None:
    row = [fp32(x) for x in (2.0, 1.5, 0.0, -0.5)]
    scores = [1.0, 1.5, 0.0, -1.0]
    shares = [math.exp(x / 0.7) for x in scores]
    sampling = Sampling(0.7, seed=3, repetition_penalty=2.0)
    counts = Counter(drawn(row, sampling, position, history=[0, 3, 0]).token for position in range(5_000))
    assert chi_square(counts, [share / sum(shares) for share in shares], 5_000) < critical(3)


@given(row=ROWS, sampling=SAMPLINGS)
def test_as_many_candidates_as_it_asks_for_hold_what_top_k_keeps(row: list[float], sampling: Sampling) -> None:
    distinct = [fp32(0.25 * i) for i in range(60)]
    for position in range(4):
        candidates = answered(distinct, needed_k(sampling), sampling.temperature)
        if sampling.top_k or sampling.temperature == 0.0:
            assert isinstance(choose(candidates, sampling, position), Choice)


def test_no_more_candidates_are_asked_for_than_a_worker_answers_or_the_model_has() -> None:
    assert needed_k(Sampling(1.5), vocab=40) == 40
    assert needed_k(Sampling(top_k=1023)) == 1024 and not needs_row(Sampling(top_k=1023))
    assert needed_k(Sampling(top_k=1024)) <= 1024 and needs_row(Sampling(top_k=1024))


def test_a_total_that_rounding_made_too_large_never_draws_the_worst_token() -> None:
    row = array("f", [20.0, 0.0, -30.0])
    candidates = Candidates((0,), (20.0,), 20.0, 20.5, row=row)
    assert {choose(candidates, Sampling(1.0), position) for position in range(500)} == {Choice(0, 0.0)}


def test_a_row_of_32000_is_drawn_from_in_milliseconds() -> None:
    generator = random.Random(1)
    row = array("f", [generator.gauss(0, 3) for _ in range(32_000)])
    candidates = answered(row, 64, 0.9, whole=True)
    times = []
    for sampling in (Sampling(0.9), Sampling(0.9, top_p=0.95), Sampling(0.9, top_k=50, repetition_penalty=1.1)):
        for position in range(5):
            start = time.thread_time()  # what it takes by itself: this machine may be busy
            choose(candidates, sampling, position, range(2000))
            times.append(time.thread_time() - start)
    assert sorted(times)[len(times) // 2] < 0.1  # about 0.01 on an idle core; a rewrite in quadratic time takes seconds


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": 1e-9},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"top_k": -1},
        {"seed": -1},
        {"seed": 2**64},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
    ],
)
def test_values_that_make_no_sense_are_refused_in_a_sentence(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="makes no sense"):
        dataclasses.replace(Sampling(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(number: float) -> None:
    with pytest.raises(ModelError, match="no numbers"):
        choose(Candidates((1,), (1.0,), number, 1.0), Sampling(), 7)
    with pytest.raises(ModelError, match="no numbers"):
        choose(Candidates((1,), (1.0,), 1.0, number), Sampling(), 7)
