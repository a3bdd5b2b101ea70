"""Which Devices should have the Stages where whole Blocks do not fit: a few orders of them, for an integer program to fill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cluster.planner.costs import Away
from cluster.planner.large_order import in_order
from cluster.planner.large_route import Aim, RouteSearch
from cluster.planner.tables import BOTH, FIRST, LAST, MIDDLE, Floats, Table


@dataclass(frozen=True)
class Owners:
    """Orders of owners for one aim, each once."""

    search: RouteSearch
    aim: Aim

    @property
    def table(self) -> Table:
        return self.search.table

    def orders(self) -> list[tuple[int, ...]]:
        """What is relaxed with experts elsewhere, all that can, then the largest: half as many, and as few as have room."""
        return list(dict.fromkeys([*self._relaxed(), *self._largest()]))

    def _relaxed(self) -> Iterator[tuple[int, ...]]:
        cores = replace(self.search, room=self.table.cores)
        problem = cores.relaxed([self.aim])
        whole = np.minimum(problem.caps, self.table.caps)
        solved = replace(problem, whole=whole, beyond=_beyond(self.table)[None, :]).solve()
        if np.isfinite(solved.sums[0]):
            yield tuple(in_order(solved.seats(0), self.table, self.search.blend(self.aim.beat).hop))

    def _largest(self) -> Iterator[tuple[int, ...]]:
        able = [d for d in range(len(self.table.devices)) if self.table.cores[MIDDLE, d]]
        ranked = sorted(able, key=lambda d: (-self.table.room[MIDDLE, d], d))
        sizes = [n for n in range(1, min(len(ranked), self.table.num_blocks) + 1) if self._has_room(ranked[:n])]
        for size in dict.fromkeys([*sizes[-1:], *sizes[len(sizes) // 2 :][:1], *sizes[:1]]):
            seats = self._seats(ranked[:size])
            if seats:
                yield tuple(in_order(seats, self.table, self.search.blend(self.aim.beat).hop))

    def _has_room(self, owners: list[int]) -> bool:
        """Whether all Blocks find room with experts anywhere, were there no experts too large for what is left."""
        prices, table = self.table.costs.prices, self.table
        helping = (max(0, d.spec.memory_bytes - prices.helper) for i, d in enumerate(table.devices) if i not in owners)
        room = sum(int(table.room[MIDDLE, d]) for d in owners) + sum(helping)
        cores = sum(int(table.cores[MIDDLE, d]) for d in owners)
        return room >= table.num_blocks * prices.whole and table.num_blocks <= cores

    def _seats(self, owners: list[int]) -> list[tuple[int, int, int]]:
        """The quickest that has room for it first, and for the head last."""
        table = self.table
        if len(owners) == 1:
            return [(owners[0], 1, BOTH)]
        lasts = [d for d in owners if table.cores[LAST, d]]
        last = min(lasts, key=lambda d: (self.aim.beat.terms.last[d], d), default=None)
        firsts = [d for d in owners if table.cores[FIRST, d] and d != last]
        first = min(firsts, key=lambda d: (self.aim.beat.terms.block[d], d), default=None)
        if first is None or last is None:
            return []
        return [(d, 1, FIRST * (d == first) + LAST * (d == last)) for d in owners]


def _beyond(table: Table) -> Floats:
    """What a Block takes more whose experts are all on the Device that answers soonest [D]."""
    costs, total = table.costs, table.costs.prices.num_experts
    found = []
    for owner in table.devices:
        others = {(d.rig, d.speed): d for d in table.devices if d is not owner}.values()
        away = [costs.block_s(owner, [Away(d, total)], 1).owner_s for d in others]
        found.append(max(1e-6, min(away, default=1.0) - costs.block_s(owner, (), 1).owner_s))
    return np.array(found)
