"""The best Route of whole Blocks over many Devices: relaxed, put in order, then improved as long as it gets better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cluster.planner.clock import Beat, Clock, busiest_s
from cluster.planner.large_order import in_order, with_idle
from cluster.planner.large_relaxed import Relaxed
from cluster.planner.ordered import Ordered, best_stages, capped
from cluster.planner.tables import BOTH, FIRST, LAST, MIDDLE, Counts, Floats, Table, Terms

Stages = tuple[tuple[int, int], ...]
"""(Device, its Blocks) in order."""

STEPS = 10
"""How many limits for the slowest Stage are tried between the least that has room and none."""
ROUNDS = 6
"""The most rounds of improving one Route."""
STARTS = 2
"""How many of the Routes found are improved."""
BATCH = 32
"""Relaxations that are solved side by side."""
SPREAD_S = 1e3
"""Seconds that each further Device is worth where all are to be used: more than any Plan takes."""


@dataclass(frozen=True)
class Aim:
    """What a Route is to be good at: so many micro-batches in flight, none of which keeps a Stage longer than `most_s`."""

    beat: Beat
    most_s: float


@dataclass(frozen=True)
class RouteSearch:
    """Routes over some Devices of a table.

    Args:
        devices: those that may be used.
        room: Blocks that each Device of the table may get beside each of the ends [4, D].
    """

    clock: Clock
    devices: tuple[int, ...]
    room: Counts

    @classmethod
    def over(cls, table: Table, in_flight: Sequence[int] = (1,)) -> RouteSearch:
        """All Devices of a table, as far as their memory goes."""
        return cls(Clock.of(table, in_flight), tuple(range(len(table.devices))), table.caps)

    @property
    def table(self) -> Table:
        return self.clock.table

    @cached_property
    def rigs(self) -> list[list[int]]:
        """Their Devices, by Rig."""
        names = sorted({self.table.devices[d].rig for d in self.devices})
        return [[d for d in self.devices if self.table.devices[d].rig == name] for name in names]

    def best(self) -> Stages | None:
        """The best Route found; None where the Blocks do not fit."""
        free = [Aim(beat, np.inf) for beat in (self.clock.beats if self.table.weights[1] else self.clock.beats[:1])]
        found = self.started(free)
        if self.table.weights[1]:
            found += self.started([aim for stages, aim in found for aim in self._tighter(stages, aim.beat)])
        best = sorted(found, key=lambda f: (self.price(f[0]), f[0]))[:STARTS]
        improved = [self.improved(stages, aim) for stages, aim in best]
        return min(improved, key=lambda s: (self.price(s), s), default=None)

    def price(self, stages: Stages) -> float:
        """Seconds of the objective, less where Devices are used that must be."""
        more = SPREAD_S * len(stages) if self.table.load.spread else 0.0
        return self.clock.price([stages])[0] - more

    def _tighter(self, stages: Stages, beat: Beat) -> list[Aim]:
        """Limits between the least that has room and what the slowest Stage takes where nothing limits it."""
        low, high = self._least_limit(beat), busiest_s(stages, beat)
        return [Aim(beat, float(limit)) for limit in np.geomspace(low, max(high, low * 1.0001), STEPS)]

    def _least_limit(self, beat: Beat) -> float:
        """The shortest time under which there is room for all Blocks, were there no ends; by halving."""
        at = list(self.devices)
        block, room = beat.terms.block[at], self.room[MIDDLE, at]
        low, high = 0.0, float((block * self.table.num_blocks).max())
        if room.sum() < self.table.num_blocks:
            return np.inf
        for _ in range(40):
            middle = (low + high) / 2
            fits = np.minimum(room, np.floor(middle / block)).sum() >= self.table.num_blocks
            low, high = (low, middle) if fits else (middle, high)
        return high

    def blend(self, beat: Beat) -> Terms:
        """What is added up: one stream and the way round of many, as the objective weighs them."""
        one, many = self.table.weights
        return self.clock.alone.times(one).plus(beat.terms.times(many))

    def started(self, aims: Sequence[Aim]) -> list[tuple[Stages, Aim]]:
        """For each aim the relaxed optimum in its best order, its Blocks shared out again on the real Hops."""
        found: list[tuple[Stages, Aim]] = []
        for at in range(0, len(aims), BATCH):
            solved = self.relaxed(aims[at : at + BATCH]).solve()
            for i, aim in enumerate(aims[at : at + BATCH]):
                if np.isfinite(solved.sums[i]):
                    order = in_order(solved.seats(i), self.table, self.blend(aim.beat).hop)
                    found += [(stages, aim) for stages in [self.shared_out(order, aim)] if stages]
        return found

    def relaxed(self, aims: Sequence[Aim]) -> Relaxed:
        """The relaxations for some aims, as one batch."""
        terms = [self.blend(aim.beat) for aim in aims]
        caps = np.stack([self._caps(aim) for aim in aims])
        keep = np.isin(np.arange(caps.shape[2]), self.devices)
        caps = caps * keep
        fixed = np.stack([fixed_s(t) for t in terms]) - (SPREAD_S if self.table.load.spread else 0.0)
        hops = [self.hops(t) for t in terms]
        return Relaxed(
            rigs=self.rigs,
            block=np.stack([t.block for t in terms]),
            beyond=np.zeros((len(aims), caps.shape[2])),
            fixed=fixed,
            whole=caps,
            caps=caps,
            enter=np.array([enter for enter, _ in hops]),
            inside=np.array([inside for _, inside in hops]),
            num_blocks=self.table.num_blocks,
        )

    def _caps(self, aim: Aim) -> Counts:
        return capped(self.room, aim.beat.terms, aim.most_s) if np.isfinite(aim.most_s) else self.room

    def hops(self, terms: Terms) -> tuple[list[float], list[float]]:
        """The shortest Hop to each Rig from another, and inside it."""
        enter, inside = [], []
        for rig in self.rigs:
            others = [d for d in self.devices if d not in rig]
            within = float(terms.hop[rig[0], rig[0]])
            shortest = float(terms.hop[others, rig[0]].min()) if others else within
            enter.append(shortest)
            inside.append(min(within, shortest))
        return enter, inside

    def shared_out(self, order: Sequence[int], aim: Aim) -> Stages | None:
        """The best counts for Devices in that order, each of which may stay without."""
        terms = self.blend(aim.beat).taken(order)
        if self.table.load.spread:
            terms = Terms(terms.block, terms.first, terms.last, terms.frame - SPREAD_S, terms.come, terms.leave, terms.hop)
        at = list(order)
        allowed = (aim.beat.hop_busy <= aim.most_s)[np.ix_(at, at)]
        extra = np.zeros((len(at), self.table.num_blocks))
        found = best_stages(Ordered(terms, self._caps(aim)[:, at], allowed, extra))
        return tuple((at[j], n) for j, n in found) if found else None

    def improved(self, stages: Stages, aim: Aim) -> Stages:
        """The Stages after rounds of: fewer or further Devices, other ends, another order, a tighter limit."""
        for _ in range(ROUNDS):
            found = [s for s in self._neighbours(stages, aim) if s]
            best = min(found, key=lambda s: (self.price(s), s), default=stages)
            if self.price(best) >= self.price(stages) - 1e-12:
                return stages
            stages = best
        return stages

    def _neighbours(self, stages: Stages, aim: Aim) -> Iterator[Stages | None]:
        order, beat = [d for d, _ in stages], aim.beat
        hop = self.blend(beat).hop
        used = set(order)
        idle = [d for d in self.devices if d not in used and self.room[MIDDLE, d]]
        full = with_idle(order, idle, hop)
        now = busiest_s(stages, beat)
        for limit in (np.inf, now * 1.1, now * 1.02, now, now * (1 - 1e-9), now * 0.97, now * 0.92):
            yield self.shared_out(full, Aim(beat, limit))
        limited = Aim(beat, now)
        for device in [*order, *idle][: 2 * ROUNDS]:
            rest = [d for d in full if d != device]
            yield self.shared_out([device, *rest], limited)
            yield self.shared_out([*rest, device], limited)


def fixed_s(terms: Terms) -> Floats:
    """Seconds for having a Stage with each of the ends [4, D]."""
    first, last = terms.first + terms.come, terms.last + terms.leave
    fixed = np.stack([terms.frame] * 4)
    fixed[[FIRST, BOTH]] += first
    fixed[[LAST, BOTH]] += last
    return fixed
