"""What Stages of whole Blocks will do, in the numbers that `predict` would give, quick enough for a search.

Everything here is for Devices by their place in a `Table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cluster.planner.tables import Floats, Table, Terms

Stages = Sequence[tuple[int, int]]
"""(Device, number of its Blocks), in order."""


@dataclass(frozen=True)
class Beat:
    """Micro-batches of a Route when so many are under way.

    Args:
        hop_busy: how long each Hop keeps its link [D, D].
    """

    in_flight: int
    terms: Terms
    hop_busy: Floats


@dataclass(frozen=True)
class Clock:
    """Times of one stream, and of many for each number in flight."""

    table: Table
    alone: Terms
    beats: tuple[Beat, ...]

    @classmethod
    def of(cls, table: Table, in_flight: Sequence[int] = ()) -> Clock:
        """For those numbers in flight; for none given, all that `predict` tries."""
        counts = in_flight or range(1, table.costs.prices.sessions + 1)
        rows = [(n, table.sessions / n) for n in counts]
        return cls(table, table.terms(1), tuple(Beat(n, table.terms(r), table.hop_busy(r)) for n, r in rows))

    def alone_s(self, stages: Stages) -> float:
        """Between two tokens of a stream that has the Route for itself."""
        return around_s(stages, self.alone)

    def many_s(self, stages: Stages, beat: Beat) -> float:
        """Between two tokens of each Session, when all Sessions of the Route answer."""
        return max(beat.in_flight * busiest_s(stages, beat), around_s(stages, beat.terms))

    def price(self, routes: Sequence[Stages]) -> tuple[float, int]:
        """The objective in seconds, as `objective_s` has it, and the number in flight that is best for it."""
        one, many = self.table.weights
        alone = min(self.alone_s(stages) for stages in routes)
        rates = [(sum(1 / self.many_s(stages, beat) for stages in routes), -beat.in_flight) for beat in self.beats]
        rate, in_flight = max(rates)
        return one * alone + many * len(routes) / rate, -in_flight


def around_s(stages: Stages, terms: Terms) -> float:
    """Once around a Route with nobody in the way, from the client and back to it."""
    first, last = stages[0][0], stages[-1][0]
    inside = sum(n * float(terms.block[d]) + float(terms.frame[d]) for d, n in stages)
    hops = sum(float(terms.hop[a, b]) for (a, _), (b, _) in pairwise(stages))
    ends = terms.first[first] + terms.last[last] + terms.come[first] + terms.leave[last]
    return inside + hops + float(ends)


def busiest_s(stages: Stages, beat: Beat) -> float:
    """How long the slowest Stage or link is kept by one micro-batch."""
    terms, last = beat.terms, len(stages) - 1
    own = (
        n * float(terms.block[d]) + (i == 0) * float(terms.first[d]) + (i == last) * float(terms.last[d])
        for i, (d, n) in enumerate(stages)
    )
    links = (float(beat.hop_busy[a, b]) for (a, _), (b, _) in pairwise(stages))
    return max(*own, *links, 0.0)
