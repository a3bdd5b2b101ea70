"""Which token comes next: from the k best Candidates where they decide it, from the whole row where they do not.

Deciding is pure: the same Candidates, Sampling and position always give the same token. Probabilities are exact
(`exp(logit / T - logsumexp_t)` over the whole vocabulary), and ids are ranked by descending logit, equal ones by
ascending id, so the token drawn does not depend on how many Candidates were there to draw it from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from swarm.client.uniform import uniform
from swarm.errors import ModelError, UsageError

MAX_CANDIDATES = 1024
"""The most that a Worker answers; where more are drawn from, the whole row is asked for instead."""

Ranked = Iterable[tuple[int, float]]
"""Token ids with logits, best first."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Raises:
        UsageError: a value that makes no sense.
    """

    temperature: float = 0.7
    """0: always the best token."""
    top_p: float = 1.0
    """Draw from the fewest best tokens that have this share of the probability; 1: from all."""
    top_k: int = 0
    """Draw from this many best tokens; 0: from all."""
    seed: int = 0
    repetition_penalty: float = 1.0
    """Makes tokens that occurred less likely (CTRL, arXiv 1909.05858); 1: does not."""

    def __post_init__(self) -> None:
        # Below a thousandth, fp32 no longer holds logits / temperature to a useful precision.
        if self.temperature != 0.0 and not 0.001 <= self.temperature <= 100.0:
            raise UsageError(f"a temperature of {self.temperature} makes no sense: give 0 (always the best token), or 0.001 to 100")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"a top-p of {self.top_p} makes no sense: give more than 0, and at most 1")
        if self.top_k < 0:
            raise UsageError(f"a top-k of {self.top_k} makes no sense: give 0 (all tokens) or more")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"a seed of {self.seed} makes no sense: give 0 to 2**64 - 1")
        if not 0.0 < self.repetition_penalty <= 100.0:
            raise UsageError(f"a repetition penalty of {self.repetition_penalty} makes no sense: give more than 0 (1: none) to 100")


@dataclass(frozen=True)
class Candidates:
    """What the last Stage answers for one position (message Candidates of stage.proto)."""

    ids: tuple[int, ...]
    """The k best, best first."""
    logits: tuple[float, ...]
    logsumexp: float
    """Over the whole vocabulary at temperature 1."""
    logsumexp_t: float
    """The same of logits / temperature."""
    named: tuple[float, ...] = ()
    row: Sequence[float] | None = None
    """All logits, by token id: any float sequence, an `array('f')` over the bytes from the wire for example."""


@dataclass(frozen=True)
class Choice:
    """A token, and its log-probability in the model's own distribution (temperature 1, no penalty)."""

    token: int
    logprob: float


@dataclass(frozen=True)
class NeedsRow:
    """The Candidates do not decide: ask for the whole row, put it into them, and choose again."""

    reason: str


def needed_k(sampling: Sampling, vocab: int = MAX_CANDIDATES) -> int:
    """How many Candidates to ask for, so that they decide nearly always; no more than the model has ids (`vocab`).

    One more than are drawn from: only then is it known which ids share the last place.
    """
    if sampling.temperature == 0.0 or needs_row(sampling):
        wanted = 2
    elif sampling.top_k:
        wanted = sampling.top_k + 1
    else:
        wanted = 64 if sampling.temperature <= 1.0 else 256
    return min(wanted, vocab)


def needs_row(sampling: Sampling) -> bool:
    """Whether Candidates never decide, so that the whole row is better asked for with the Step."""
    return sampling.repetition_penalty != 1.0 or sampling.top_k >= MAX_CANDIDATES


def choose(candidates: Candidates, sampling: Sampling, position: int, history: Collection[int] = ()) -> Choice | NeedsRow:
    """The token at a position.

    Args:
        candidates: for that position.
        sampling: how to draw; `logsumexp_t` is at its temperature (at 1 where that is 0).
        position: of the token that is drawn, counted from the Session's first; with the seed it keys the draw.
        history: ids that the repetition penalty weighs down: all tokens of the Session before `position`.

    Raises:
        ModelError: the logits are not numbers.
    """
    if not (math.isfinite(candidates.logsumexp) and math.isfinite(candidates.logsumexp_t)):
        raise ModelError(f"the model's logits at position {position} are no numbers: load it again, or in another --dtype")
    row = candidates.row
    if row is None:
        return _from_best(candidates, sampling, position)
    logits, total = row, candidates.logsumexp_t
    if sampling.repetition_penalty != 1.0:
        logits = _penalised(row, sampling.repetition_penalty, history)
        total = _logsumexp(logits, sampling.temperature)
    token = _pick(_best_first(logits), True, total, sampling, position)
    assert token is not None, "a whole row always decides"
    return Choice(token, row[token] - candidates.logsumexp)


def _from_best(candidates: Candidates, sampling: Sampling, position: int) -> Choice | NeedsRow:
    if sampling.repetition_penalty != 1.0:
        return NeedsRow("a repetition penalty weighs the whole vocabulary")
    token = _pick(_sure(candidates, sampling), False, candidates.logsumexp_t, sampling, position)
    if token is None:
        return NeedsRow(f"the {len(candidates.ids)} best tokens do not decide position {position}")
    return Choice(token, candidates.logits[candidates.ids.index(token)] - candidates.logsumexp)


def _sure(candidates: Candidates, sampling: Sampling) -> list[tuple[int, float]]:
    """The Candidates whose rank is certain: ids left out may equal the last logit, and rank before its ids.

    At temperature 0 a lone Candidate is taken at its word.
    """
    both = sorted(zip(candidates.ids, candidates.logits, strict=True), key=lambda pair: (-pair[1], pair[0]))
    lone = len(both) == 1 and sampling.temperature == 0.0
    return both if lone else [pair for pair in both if pair[1] > both[-1][1]]


def _pick(ranked: Ranked, whole: bool, total: float, sampling: Sampling, position: int) -> int | None:
    """The token, or None where `ranked` ends too early to tell; `whole`: it has the whole vocabulary."""
    if sampling.temperature == 0.0:
        return next((token for token, _ in ranked), None)
    masses, mass, complete = _cumulative(ranked, total, sampling.temperature), 1.0, whole
    if sampling.top_k:
        best = list(itertools.islice(masses, sampling.top_k))
        if not whole and len(best) < sampling.top_k:
            return None
        masses, mass, complete = iter(best), best[-1][1], True
    if sampling.top_p < 1.0:
        nucleus = list(_until(masses, sampling.top_p * mass))
        if not complete and (not nucleus or nucleus[-1][1] < sampling.top_p * mass):
            return None
        masses, mass, complete = iter(nucleus), nucleus[-1][1], True
    return _at(masses, uniform(sampling.seed, position), mass, complete)


def _cumulative(ranked: Ranked, total: float, temperature: float) -> Iterator[tuple[int, float]]:
    """Ids with the probability of each and all before it."""
    mass = 0.0
    for token, logit in ranked:
        mass += math.exp(min(0.0, logit / temperature - total))
        yield token, mass


def _until(masses: Iterator[tuple[int, float]], share: float) -> Iterator[tuple[int, float]]:
    """The fewest that have this share of the probability, at least one (as transformers' TopPLogitsWarper)."""
    for token, mass in masses:
        yield token, mass
        if mass >= share:
            return


def _at(masses: Iterator[tuple[int, float]], drawn: float, mass: float, complete: bool) -> int | None:
    """The inverse of the cumulative distribution at `drawn` in [0, 1), or None where it lies beyond what is known."""
    walked = []
    for token, upto in masses:
        if upto > drawn * mass:
            return token
        walked.append((token, upto))
    if not complete:
        return None
    # The total came as fp32, so that the whole row's mass may end a little below 1: draw from what there is.
    return next((token for token, upto in walked if upto > drawn * walked[-1][1]), walked[0][0])


def _best_first(row: Sequence[float]) -> Iterator[tuple[int, float]]:
    """All ids with logits, by descending logit, equal ones by ascending id; sorted piece by piece, since few are walked."""
    best = max(row)
    above = math.inf
    for depth in (8.0, 16.0, math.inf):
        floor = best - depth
        # A stable sort keeps ids ascending among equals.
        for token in sorted((i for i, x in enumerate(row) if floor < x <= above), key=row.__getitem__, reverse=True):
            yield token, row[token]
        above = floor
    yield from ((token, x) for token, x in enumerate(row) if x == -math.inf)


def _penalised(row: Sequence[float], penalty: float, history: Collection[int]) -> list[float]:
    """The row with the logits of ids that occurred divided by the penalty, negative ones multiplied (CTRL)."""
    logits = list(row)
    for token in set(history):
        if 0 <= token < len(logits):
            logits[token] = logits[token] * penalty if logits[token] < 0.0 else logits[token] / penalty
    return logits


def _logsumexp(row: Sequence[float], temperature: float) -> float:
    scale = temperature or 1.0
    best = max(row)
    return best / scale + math.log(sum(math.exp((x - best) / scale) for x in row))
