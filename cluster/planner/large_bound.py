"""A lower bound of the objective over all Plans: no search can find better, so it says how good the one found is.

Relaxed: Hops are as short as the shortest to their Rig; ExpertShards are asked over the best link of the owner, never wait, and
their memory is endless; between two numbers in flight the better of both counts, for the slowest Stage and for the way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cluster.planner.costs import Away, choices
from cluster.planner.hardware import Measured, Speed
from cluster.planner.large_relaxed import Relaxed
from cluster.planner.large_route import RouteSearch, fixed_s
from cluster.planner.ordered import capped
from cluster.planner.tables import MIDDLE, Floats, Table, Terms

LADDER = 12
"""Steps between the least time of the slowest Stage and the one that alone is as bad as what was found."""
INTERVALS = 6
"""Numbers in flight are taken together in so many intervals, at most; all alone where they are as few."""


@dataclass(frozen=True)
class _Least:
    """What Blocks take at least, with as many experts elsewhere as is best.

    Args:
        terms: the block of which is that least; seconds.
        beyond: more for a Block that finds no room on its owner [D].
    """

    terms: Terms
    beyond: Floats

    @classmethod
    def of(cls, table: Table, rows: float) -> _Least:
        found = [_least(table, d, asked, rows) for d, asked in zip(table.devices, _soonest(table, rows), strict=True)]
        terms = replace(table.terms(rows), block=np.array([block for block, _ in found]))
        return cls(terms, np.array([beyond for _, beyond in found]))

    def times(self, weight: float) -> _Least:
        return _Least(self.terms.times(weight), weight * self.beyond)

    def plus(self, other: _Least) -> _Least:
        return _Least(self.terms.plus(other.terms), self.beyond + other.beyond)


def _least(table: Table, owner: Measured, asked_s: float, rows: float) -> tuple[float, float]:
    """The least that a Block takes of an owner, and the least more that one takes which finds no room there.

    Args:
        asked_s: the soonest that any other Device answers.
    """
    prices, costs = table.costs.prices, table.costs
    total, part = prices.num_experts, costs.touched(rows) / prices.num_experts
    core, each = costs.core_s(owner, rows), costs.expert_s(owner, rows)
    times = [costs.block_s(owner, (), rows).owner_s]
    for away in range(1, total + 1):
        if rows <= 1:
            ways = choices((total - away, away), prices.sizes.config.top_k)
            times.append(core + sum(p * max(n * each, asked_s if there else 0.0) for (n, there), p in ways))
        else:
            times.append(core + max(part * (total - away) * each, asked_s))
    least = min(times)
    slope = min(((time - least) / away for away, time in enumerate(times) if away), default=0.0)
    return least, slope * prices.whole / prices.expert


def _soonest(table: Table, rows: float) -> list[float]:
    """The soonest that any other Device answers each of them for one expert."""
    costs = table.costs
    twins: dict[tuple[str, Speed], list[Measured]] = {}
    for device in table.devices:
        twins.setdefault((device.rig, device.speed), []).append(device)
    helpers = [(d, costs.expert_s(d, rows)) for alike in twins.values() for d in alike[:2]]
    part = costs.touched(rows) / costs.prices.num_experts if rows > 1 else 1.0
    answers = rows * costs.prices.sizes.config.top_k / costs.prices.num_experts if rows > 1 else 1.0
    sent = rows if rows > 1 else 1
    return [
        min((costs.asked_s(owner, Away(d, 1), sent, answers, part * s) for d, s in helpers if d is not owner), default=np.inf)
        for owner in table.devices
    ]


@dataclass(frozen=True)
class Bound:
    """Bounds over one or several Routes of a table.

    Args:
        found_s: the objective of a Plan that was found: worse ones need no bound.
    """

    table: Table
    found_s: float

    def seconds(self) -> float:
        """The least that the objective can be; infinite where no such Plan fits."""
        one, many = self.table.weights
        alone = _Least.of(self.table, 1)
        stream_s = float(self._sums([alone], [np.inf])[0])
        if not many or not np.isfinite(stream_s):
            return float(one * stream_s)
        sessions = self.table.costs.prices.sessions
        steps = sorted({round(n) for n in np.geomspace(1, sessions, INTERVALS)})
        return min(self._within(a, b, alone, stream_s) for a, b in _intervals(steps))

    def _within(self, fewest: int, most: int, alone: _Least, stream_s: float) -> float:
        """With so many micro-batches in flight; a micro-batch only gets quicker with fewer rows, a row with more of them."""
        one, many = self.table.weights
        slowest = _Least.of(self.table, self.table.sessions / fewest).times(fewest)
        around = slowest.times(1 / fewest) if most == fewest else _Least.of(self.table, self.table.sessions / most)
        if self.table.routes > 1:
            shared = self.table.routes / (1 / slowest.terms.block).sum() * self.table.num_blocks
            return float(one * stream_s + many * max(shared, self._sums([around], [np.inf])[0]))
        low = self._least_limit(slowest)
        high = max((self.found_s - one * stream_s) / many, low * 1.0001)
        limits = np.geomspace(low, high, LADDER)
        both = alone.times(one).plus(around.times(many))
        sums = self._sums([both] * (LADDER - 1), limits[1:].tolist(), slowest.terms)
        steps = np.maximum(sums, one * stream_s + many * limits[:-1])
        return float(min(steps.min(), one * stream_s + many * high))

    def _least_limit(self, slowest: _Least) -> float:
        """The shortest time of the slowest Stage under which there is room for all Blocks, were there no ends; by halving."""
        block, room = slowest.terms.block, self.table.cores[MIDDLE]
        low, high = 0.0, float((block * self.table.num_blocks).max())
        for _ in range(40):
            middle = (low + high) / 2
            fits = np.minimum(room, np.floor(middle / block)).sum() >= self.table.num_blocks
            low, high = (low, middle) if fits else (middle, high)
        return low

    def _sums(self, leasts: Sequence[_Least], limits: Sequence[float], slowest: Terms | None = None) -> Floats:
        """The relaxed optima, with no Stage longer than its limit."""
        caps, whole = self.table.cores, -(-self.table.room // self.table.costs.prices.whole)
        search = RouteSearch.over(self.table)
        hops = [search.hops(least.terms) for least in leasts]
        limited = np.stack([capped(caps, slowest, limit) if slowest else caps for limit in limits])
        return (
            Relaxed(
                rigs=search.rigs,
                block=np.stack([least.terms.block for least in leasts]),
                beyond=np.stack([least.beyond for least in leasts]),
                fixed=np.stack([fixed_s(least.terms) for least in leasts]),
                whole=np.minimum(limited, whole),
                caps=limited,
                enter=np.array([enter for enter, _ in hops]),
                inside=np.array([inside for _, inside in hops]),
                num_blocks=self.table.num_blocks,
            )
            .solve()
            .sums
        )


def _intervals(steps: Sequence[int]) -> list[tuple[int, int]]:
    """Each number alone where all of them are there; else from each to the next."""
    if len(steps) == steps[-1]:
        return [(n, n) for n in steps]
    return list(pairwise(steps))
