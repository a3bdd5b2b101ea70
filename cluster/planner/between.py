"""Plans between the one in force and a fresh one: the same Stages in the same order, with boundaries moved as far as it pays.

Devices that are lost are left out, new ones are offered a place. Whole Blocks only: a swarm that needs ExpertShards goes from one
optimum to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from cluster.planner.choice import Choice, Kind, StageChoice
from cluster.planner.clock import Beat, Clock, Stages, busiest_s
from cluster.planner.held import EMBEDDING, HEAD, Held, whole
from cluster.planner.ordered import Ordered, best_stages, capped
from cluster.planner.tables import Floats, Table
from swarm.plan import Plan

SHARES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""How much of a Worker's loading counts: all Workers load at once, so the sum of them says too much."""
SLACKS = (1.0, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, float("inf"))
"""How much longer than in the fresh Plan the slowest Worker may take."""

CHOICES = 4
"""How many of the ways found are laid out and priced to the end."""

Routes = tuple[tuple[tuple[int, int], ...], ...]
"""(Device, its Blocks) in order, a Route each."""
FEW_NEW, FEW_STAGES = 2, 12
"""Up to so many new Devices and Stages, every place for the new ones is tried."""


@dataclass(frozen=True)
class _Aim:
    """One trade between speed and loading.

    Args:
        share: of the sum of all loading that counts.
        most_s: how long a micro-batch may keep the slowest Stage.
        shift: how far from their nearest neighbour new Devices come in.
    """

    beat: Beat
    share: float
    most_s: float
    shift: int


@dataclass(frozen=True)
class Between:
    """Where to look.

    Args:
        a_second: what a second of loading costs, in seconds of the objective.
    """

    clock: Clock
    before: Held
    a_second: float

    @property
    def table(self) -> Table:
        return self.clock.table

    def choices(self, previous: Plan, fresh: Plan) -> list[Choice]:
        """The most promising; none where the previous Plan has no Device left, or another number of Routes."""
        if fresh.shards or fresh.standbys or len(previous.routes) != len(fresh.routes):
            return []
        routes = [[self._place(s.worker) for s in r.stages if s.worker in self.table.names] for r in previous.routes]
        found: set[Routes] = set()
        for beat, share, slack, shift in product(self._beats(fresh), SHARES, SLACKS, self._shifts(routes)):
            most_s = slack * max(busiest_s(self._stages(r), beat) for r in _counts(fresh))
            way = self._routes(routes, _Aim(beat, share, most_s, shift))
            found |= {way} if way else set()
        return [self._choice(way) for way in sorted(found, key=lambda way: (self._worth(way), way))[:CHOICES]]

    def _worth(self, routes: Routes) -> float:
        """Seconds of the objective, and of loading."""
        loading = 0.0
        for stages in routes:
            missing = np.cumsum(self._missing([d for d, _ in stages]), axis=1)
            ends = np.cumsum([n for _, n in stages])
            starts = ends - [n for _, n in stages]
            for row, (device, _) in enumerate(stages):
                lacking = missing[row, ends[row] - 1] - (missing[row, starts[row] - 1] if starts[row] else 0.0)
                loading = max(loading, lacking / self.table.devices[device].fetch_bytes_per_s)
        return self.clock.price(routes)[0] + self.a_second * loading

    def _beats(self, fresh: Plan) -> list[Beat]:
        return [beat for beat in self.clock.beats if beat.in_flight == fresh.in_flight] or [self.clock.beats[-1]]

    def _shifts(self, routes: Sequence[Sequence[int]]) -> Sequence[int]:
        """Places for new Devices, counted from their nearest neighbour: all of them where there are few."""
        longest = max(len(route) for route in routes)
        few = len(self.table.devices) - sum(len(route) for route in routes) <= FEW_NEW and longest <= FEW_STAGES
        if not few:
            return (0,)
        spare = [d for d in range(len(self.table.devices)) if all(d not in r for r in routes)]
        orders = {tuple(tuple(self._with_spare(r, spare, s)) for r in routes): s for s in range(longest, -longest - 1, -1)}
        return sorted(orders.values(), key=lambda shift: (abs(shift), shift))

    def _routes(self, routes: Sequence[Sequence[int]], aim: _Aim) -> Routes | None:
        spare = [d for d in range(len(self.table.devices)) if all(d not in r for r in routes)]
        found = []
        for route in routes:
            stages = self._best(self._with_spare(route, spare, aim.shift), aim)
            if stages is None:
                return None
            spare = [d for d in spare if d not in {s for s, _ in stages}]
            found.append(tuple(stages))
        return tuple(found)

    def _with_spare(self, route: Sequence[int], spare: Sequence[int], shift: int) -> list[int]:
        """Each spare Device after the one that is nearest to it, or so many places beside it."""
        order = list(route)
        for device in spare:
            near = min(range(len(order)), key=lambda i: (self.table.rtt[order[i], device], -i), default=-1)
            order.insert(min(max(near + 1 + shift, 0), len(order)), device)
        return order

    def _best(self, order: Sequence[int], aim: _Aim) -> Stages | None:
        """The Stages of one Route, Devices by their place in the table."""
        if not order:
            return None
        one, many = self.table.weights
        terms = self.clock.alone.times(one).plus(aim.beat.terms.times(many)).taken(order)
        price = aim.share * self.a_second / np.array([self.table.devices[d].fetch_bytes_per_s for d in order])
        ends = [np.array([self.before.missing_bytes(self.table.names[d], [end]) for d in order]) for end in (EMBEDDING, HEAD)]
        terms = replace(terms, first=terms.first + price * ends[0], last=terms.last + price * ends[1])
        caps = self.table.caps[:, list(order)]
        limited = capped(caps, aim.beat.terms.taken(order), aim.most_s) if np.isfinite(aim.most_s) else caps
        links = (aim.beat.hop_busy <= aim.most_s)[np.ix_(order, order)]
        found = best_stages(Ordered(terms, limited, links, price[:, None] * self._missing(order)))
        return [(order[j], n) for j, n in found] if found else None

    def _missing(self, order: Sequence[int]) -> Floats:
        """Bytes that each Device lacks of each Block [D, L]."""
        experts, num_blocks = self.before.sizes.config.num_experts, self.table.num_blocks
        blocks = [whole(b, experts) for b in range(num_blocks)]
        return np.array([[self.before.missing_bytes(self.table.names[d], blocks[b]) for b in range(num_blocks)] for d in order])

    def _choice(self, routes: Sequence[Stages]) -> Choice:
        seconds, in_flight = self.clock.price(routes)
        names = self.table.names
        return Choice(tuple(tuple(StageChoice(names[d], ((Kind(), n),)) for d, n in r) for r in routes), in_flight, seconds)

    def _place(self, name: str) -> int:
        return self.table.names.index(name)

    def _stages(self, counts: Sequence[tuple[str, int]]) -> Stages:
        return [(self._place(name), n) for name, n in counts]


def _counts(plan: Plan) -> list[list[tuple[str, int]]]:
    return [[(s.worker, len(s.blocks)) for s in route.stages] for route in plan.routes]
