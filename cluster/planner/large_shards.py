"""ExpertShards and standby copies for chosen Stages: an integer program over how many Blocks of each kind each owner has.

min  one x alone + many x T,   T >= in flight x busy of each Worker and link,   T >= the way round.
Each owner is offered the few Devices that answer it soonest. The search stops after a number of nodes, never after a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from cluster.planner.choice import Choice, Kind, StageChoice
from cluster.planner.clock import Beat, Clock, around_s
from cluster.planner.costs import Away
from cluster.planner.tables import Table

NODES = 10
"""Of one integer program, at most."""
GAP = 1e-2
"""Relative difference from its optimum that ends an integer program."""
HELPERS = 3
"""Devices that each owner may ask for experts: those that answer it soonest."""
ASKED = 20
"""Where few owners share as many, each may ask more."""
MANY_OWNERS = 20
"""Where there are more, each may ask two."""
PAIRS = 2
"""Of those, so many are also asked two at a time."""
ROOMY = 2
"""Further Devices, those with most room."""
MS = 1e3
"""The program counts in milliseconds, so that the solver's tolerances are small beside them."""
AMOUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""How many experts of a Block may be on one other Device; all of them always may."""

Row = tuple[list[tuple[int, float]], float, float]
"""(variable, its factor) of a sum, and what it must be at least and at most."""


@dataclass(frozen=True)
class _Way:
    """One kind of Block of one owner, with what it takes.

    Args:
        owner: its place in the Route.
        away: (Device, experts) of those that the owner does not hold.
        alone_s, own_s: of the owner, for one stream and for one micro-batch of many.
        away_s: of each Device in `away`, for a micro-batch.
    """

    owner: int
    away: tuple[tuple[int, int], ...]
    alone_s: float
    own_s: float
    away_s: tuple[float, ...]


@dataclass(frozen=True)
class ShardProgram:
    """The Stages of one Route, by Device in order, with so many micro-batches in flight."""

    clock: Clock
    owners: tuple[int, ...]
    beat: Beat

    @property
    def table(self) -> Table:
        return self.clock.table

    @cached_property
    def ways(self) -> list[_Way]:
        return [way for place in range(len(self.owners)) for way in self._ways(place)]

    @cached_property
    def rig_sets(self) -> list[frozenset[str]]:
        """The different sets of Rigs that serve a Block; none where no copies are asked for."""
        if not self.table.load.standby:
            return []
        return sorted({self._serving(way) for way in self.ways}, key=sorted)

    @property
    def _at_copies(self) -> int:
        return len(self.ways) + 1

    @property
    def _at_standing(self) -> int:
        return self._at_copies + len(self.rig_sets) * len(self.table.devices)

    @property
    def _size(self) -> int:
        return self._at_standing + (len(self.table.devices) if self.rig_sets else 0)

    def solve(self) -> Choice | None:
        """The best Choice found; None where there is none with these Stages."""
        one, many = self.table.weights
        cost, upper, integral = np.zeros(self._size), np.full(self._size, np.inf), np.ones(self._size, dtype=np.int64)
        cost[: len(self.ways)] = [one * MS * way.alone_s for way in self.ways]
        cost[len(self.ways)], integral[len(self.ways)] = many, 0
        upper[self._at_standing :] = 1
        for place in self._impossible():
            upper[place] = 0
        rows = [*self._counts(), *self._memory(), *(self._times() if many else ()), *self._standing()]
        matrix = np.zeros((len(rows), self._size))
        for i, (row, _, _) in enumerate(rows):
            for place, value in row:
                matrix[i, place] += value
        limits = LinearConstraint(csr_matrix(matrix), np.array([r[1] for r in rows]), np.array([r[2] for r in rows]))
        solved = milp(
            cost,
            integrality=integral,
            bounds=Bounds(np.zeros(self._size), upper),
            constraints=limits,
            options={"node_limit": NODES, "mip_rel_gap": GAP},
        )
        return None if solved.x is None else self._choice(np.rint(solved.x).astype(np.int64))

    def _ways(self, place: int) -> Iterator[_Way]:
        yield self._way(place, ())
        helpers, total = self._helpers(self.owners[place]), self.table.costs.prices.num_experts
        for helper in helpers:
            for n in sorted({*(n for n in AMOUNTS if n < total), total}):
                yield self._way(place, ((helper, n),))
        for a, b in combinations(helpers[:PAIRS], 2):
            for n in sorted({1, total // 4, total // 2, total - 1} - {0}):
                for m in sorted({1, n // 2, n, total - n} - {0}):
                    if n + m <= total:
                        yield self._way(place, ((a, n), (b, m)))

    def _way(self, place: int, away: tuple[tuple[int, int], ...]) -> _Way:
        devices, costs = self.table.devices, self.table.costs
        alone = costs.block_s(devices[self.owners[place]], [Away(devices[d], n) for d, n in away], 1).owner_s
        busy = [Away(devices[d], n, d in self.owners) for d, n in away]
        many = costs.block_s(devices[self.owners[place]], busy, self.table.sessions / self.beat.in_flight)
        return _Way(place, away, alone, many.owner_s, many.away_s)

    def _helpers(self, owner: int) -> list[int]:
        """Those that answer soonest, and of the others those with most room; all in a small swarm."""
        costs, devices, prices = self.table.costs, self.table.devices, self.table.costs.prices
        able = [d for d in range(len(devices)) if d != owner and devices[d].spec.memory_bytes >= prices.helper + prices.expert]
        asked = {d: costs.asked_s(devices[owner], Away(devices[d], 1), 1, 1, costs.expert_s(devices[d], 1)) for d in able}
        soonest = sorted(able, key=lambda d: (asked[d], d))
        near = max(HELPERS, ASKED // len(self.owners))
        roomy = sorted(soonest[near:], key=lambda d: (-devices[d].spec.memory_bytes, d))
        idle = [d for d in soonest if self.table.load.spread and d not in self.owners and self._nearest_owner(d) == owner]
        few = len(self.owners) > MANY_OWNERS
        return list(dict.fromkeys(soonest[:2] + idle if few else soonest[:near] + roomy[:ROOMY] + idle))

    def _nearest_owner(self, device: int) -> int:
        return min(self.owners, key=lambda owner: (self.table.rtt[owner, device], owner))

    def _counts(self) -> Iterator[Row]:
        yield [(i, 1.0) for i in range(len(self.ways))], self.table.num_blocks, self.table.num_blocks
        for place in range(len(self.owners)):
            yield [(i, 1.0) for i, way in enumerate(self.ways) if way.owner == place], 1, np.inf

    def _memory(self) -> Iterator[Row]:
        """In experts, of every Device."""
        prices, last = self.table.costs.prices, len(self.owners) - 1
        for d, device in enumerate(self.table.devices):
            row = [(i, float(n)) for i, way in enumerate(self.ways) for holder, n in way.away if holder == d]
            row += [(self._copy(g, d), prices.whole / prices.expert) for g in range(len(self.rig_sets))]
            fixed = prices.helper
            if d in self.owners:
                place = self.owners.index(d)
                own = [(i, way) for i, way in enumerate(self.ways) if way.owner == place]
                row += [(i, prices.whole / prices.expert - sum(n for _, n in way.away)) for i, way in own]
                fixed = prices.fixed(place == 0, place == last)
            elif self.rig_sets:
                row.append((self._at_standing + d, (prices.fixed(False, False) - fixed) / prices.expert))
            if (
                self.table.load.spread
                and d not in self.owners
                and row
                and device.spec.memory_bytes >= prices.helper + prices.expert
            ):
                yield list(row), 1, np.inf
            yield row, -np.inf, max(0.0, (device.spec.memory_bytes - fixed) / prices.expert)

    def _times(self) -> Iterator[Row]:
        """Of every Worker and link, and of the way round, beside the time of many; milliseconds."""
        terms, n, place_of = self.beat.terms, self.beat.in_flight, {d: i for i, d in enumerate(self.owners)}
        time = (len(self.ways), -1.0)
        first, last = self.owners[0], self.owners[-1]
        for d in range(len(self.table.devices)):
            row = [(i, n * MS * s) for i, w in enumerate(self.ways) for (h, _), s in zip(w.away, w.away_s, strict=True) if h == d]
            if d in place_of:
                row += [(i, n * MS * way.own_s) for i, way in enumerate(self.ways) if way.owner == place_of[d]]
            ends = (d == first) * terms.first[d] + (d == last) * terms.last[d]
            if row:
                yield [*row, time], -np.inf, -n * MS * float(ends)
        hops = list(pairwise(self.owners))
        around = around_s([(d, 0) for d in self.owners], terms)
        yield [*((i, MS * way.own_s) for i, way in enumerate(self.ways)), time], -np.inf, -MS * around
        yield [time], -np.inf, -n * MS * max((float(self.beat.hop_busy[a, b]) for a, b in hops), default=0.0)

    def _standing(self) -> Iterator[Row]:
        """Every Block has a copy, on a Device that has room and a workspace for it."""
        devices = range(len(self.table.devices))
        for g, rigs in enumerate(self.rig_sets):
            served = [(i, -1.0) for i, way in enumerate(self.ways) if self._serving(way) == rigs]
            yield [*served, *((self._copy(g, d), 1.0) for d in devices)], 0, 0
        for d in devices if self.rig_sets else ():
            copies = [(self._copy(g, d), 1.0) for g in range(len(self.rig_sets))]
            yield [*copies, (self._at_standing + d, -float(self.table.num_blocks))], -np.inf, 0

    def _impossible(self) -> Iterator[int]:
        """Copies on a Rig that serves the Blocks itself."""
        for g, rigs in enumerate(self.rig_sets):
            yield from (self._copy(g, d) for d, device in enumerate(self.table.devices) if device.rig in rigs)

    def _copy(self, rig_set: int, device: int) -> int:
        return self._at_copies + rig_set * len(self.table.devices) + device

    def _serving(self, way: _Way) -> frozenset[str]:
        return frozenset(self.table.devices[d].rig for d in (self.owners[way.owner], *(d for d, _ in way.away)))

    def _choice(self, found: NDArray[np.int64]) -> Choice:
        """The Blocks of each kind, and of them as many with a copy on each Device as there is room."""
        copies = {(g, d): int(found[self._copy(g, d)]) for g in range(len(self.rig_sets)) for d in range(len(self.table.devices))}
        kinds: list[list[tuple[Kind, int]]] = [[] for _ in self.owners]
        for way, count in zip(self.ways, found, strict=False):
            for standby, n in self._shared(way, int(count), copies):
                away = tuple(sorted((self.table.names[d], experts) for d, experts in way.away))
                kinds[way.owner].append((Kind(away, standby), n))
        stages = tuple(StageChoice(self.table.names[d], tuple(k)) for d, k in zip(self.owners, kinds, strict=True))
        return Choice((stages,), self.beat.in_flight, 0.0)

    def _shared(self, way: _Way, count: int, copies: dict[tuple[int, int], int]) -> Iterator[tuple[str, int]]:
        if not self.rig_sets:
            yield from [("", count)] if count else []
            return
        rig_set = self.rig_sets.index(self._serving(way))
        for d, name in enumerate(self.table.names):
            taken = min(count, copies[rig_set, d])
            if taken:
                copies[rig_set, d] -= taken
                count -= taken
                yield name, taken
