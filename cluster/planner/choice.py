"""What was decided, in numbers: how many Blocks of which kind on which Devices, before Blocks and experts have ids.

Blocks of a model weigh the same, so the search counts them; `lay_out` says which is where, with the least to move.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of Block of a Stage.

    Args:
        away: (Worker, number of experts) of those that the owner does not hold, in the order of the names.
        standby: the Worker that keeps a copy of the whole Block; empty: none does.
    """

    away: tuple[tuple[str, int], ...] = ()
    standby: str = ""


@dataclass(frozen=True)
class StageChoice:
    """One Worker's Stage: how many Blocks of each kind, at least one in all."""

    worker: str
    kinds: tuple[tuple[Kind, int], ...]

    @property
    def num_blocks(self) -> int:
        return sum(count for _, count in self.kinds)


@dataclass(frozen=True)
class Choice:
    """A whole decision.

    Args:
        routes: Stages in order, a Route each.
        in_flight: micro-batches under way on each Route when all Sessions answer.
        seconds: what it is chosen by, see `objective_s`.
        at_least: no Plan takes less seconds, by the bounds of the search; equal to `seconds` where it is the optimum.
    """

    routes: tuple[tuple[StageChoice, ...], ...]
    in_flight: int
    seconds: float
    at_least: float = 0.0
