"""Which fault comes when, on what kind of swarm: a pure function of a seed and a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

RUN = 25
"""Faults in a row on one kind of swarm: each change of kind costs a start."""
SHORTEST_S, LONGEST_S = 0.3, 8.0


@dataclass(frozen=True)
class Blow:
    """One fault to come.

    Args:
        seed, number: what it was drawn from; who repeats them has the same again.
        shape: the kind of swarm that it hits.
        kind: of the fault.
        target: which Rig, 0 to 1 along all that there are.
        seconds: how long what lasts goes on.
        amount: how much of what can be more or less, 0 to 1.
        tokens: how far an answer is when it comes.
    """

    seed: int
    number: int
    shape: str
    kind: str
    target: float
    seconds: float
    amount: float
    tokens: int

    def of(self, names: Sequence[str]) -> str:
        """Whom it hits."""
        return names[int(self.target * len(names))]


def blow(seed: int, number: int, kinds: Mapping[str, Sequence[str]], run: int = RUN, longest_s: float = LONGEST_S) -> Blow:
    """The fault of a number.

    Args:
        kinds: by shape, the faults that it can have; a kind that is named twice comes twice as often.
        run: faults in a row on one shape.
        longest_s: what lasts goes on for so long at most.
    """
    shapes = list(kinds)
    shape = shapes[number // run % len(shapes)]
    draw = Random(f"{seed}:{shape}:{number}")
    return Blow(
        seed, number, shape,
        kind=_dealt(seed, shape, number, kinds[shape]),
        target=draw.random(), seconds=round(draw.uniform(SHORTEST_S, longest_s), 2),
        amount=draw.random(), tokens=draw.randint(1, 10),
    )  # fmt: skip


def _dealt(seed: int, shape: str, number: int, kinds: Sequence[str]) -> str:
    """As cards are dealt: each kind comes once before any comes again."""
    deck = list(kinds)
    Random(f"{seed}:{shape}:{number // len(deck)}").shuffle(deck)
    return deck[number % len(deck)]
