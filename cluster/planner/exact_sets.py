"""Sets of owners of one Route on one ground: what each costs at least, and what it takes to try it.

C: classes of alike Devices   R: numbers of rows   K: kinds of Block   X: sets of owners   N: Devices
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cluster.planner.exact_best import LONGER, Found
from cluster.planner.exact_fill import Stages, Weights, fill
from cluster.planner.exact_ground import Ends, Flags, Floats, Ground, Ints
from cluster.planner.exact_paths import Counts, Path, Paths
from cluster.planner.exact_program import UNNOTICED, Program, Solved
from cluster.planner.exact_times import Kinds, Times, least_prices


@dataclass(frozen=True)
class Sets:
    """All sets of owners, with every number of micro-batches under way.

    Args:
        times: by rows, shared between searches on grounds with the same Devices.
    """

    ground: Ground
    weights: Weights
    in_flights: tuple[int, ...]
    times: dict[float, Times] = field(default_factory=dict)

    @cached_property
    def kinds(self) -> Kinds:
        others = len(self.ground.devices) - 1
        return Kinds.of(others, self.ground.prices.num_experts)

    @cached_property
    def alone(self) -> Times:
        return self._times(1.0)

    @cached_property
    def many(self) -> dict[int, Times]:
        return {n: self._times(self.ground.sessions / n) for n in self.in_flights}

    def _times(self, rows: float) -> Times:
        if rows not in self.times:
            self.times[rows] = Times(self.ground, self.kinds, rows)
        return self.times[rows]

    @cached_property
    def paths(self) -> Paths:
        return Paths(self.ground, (1.0, *(self.many[n].rows for n in self.in_flights)))

    @cached_property
    def extras(self) -> Floats:
        """[R, C, C] what a first and a last Stage of these classes take beside Blocks and Hops."""
        at = [c[0] for c in self.ground.classes]
        devices, costs = self.ground.devices, self.ground.costs
        client = np.array([[costs.client_s(devices[a], devices[b]) for b in at] for a in at])
        times = [self.alone, *(self.many[n] for n in self.in_flights)]
        return np.array([client + t.ends(True, False)[at][:, None] + t.ends(False, True)[at][None, :] for t in times])

    @cached_property
    def software(self) -> Floats:
        return np.array([self.ground.costs.frame_s(d) for d in self.ground.devices])

    def devices_of(self, counts: Counts) -> list[int]:
        return [d for c, n in zip(self.ground.classes, counts, strict=True) for d in c[:n]]

    def could_fit(self, counts: Counts) -> bool:
        ground, prices = self.ground, self.ground.prices
        owners = self.devices_of(counts)
        room = ground.room(False, False)
        held = ground.helper_room // prices.expert * prices.expert
        total = int(held.sum()) + int((room[owners] - held[owners]).sum())
        return total >= prices.num_blocks * prices.whole

    def owner(self, sets: Sequence[Counts]) -> Ints:
        owner = np.zeros((len(sets), len(self.ground.devices)), np.int64)
        for x, counts in enumerate(sets):
            owner[x, self.devices_of(counts)] = 1
        return owner

    def bounded(
        self, sets: Sequence[Counts], owner: Ints, split: bool, away: bool, most: float = np.inf
    ) -> list[tuple[float, Counts, int]]:
        """(bound, owners, place in `in_flights`) of those that are not above `most`, lowest first."""
        found: list[tuple[float, Counts, int]] = []
        weights = replace(self.weights, many=self.weights.many * (self.weights.many > UNNOTICED))
        fixed = np.array([(self.paths.least[c][0] + self.extras).min(axis=(1, 2)) for c in sets]) + (owner @ self.software)[:, None]
        link = np.array([self.paths.least[c][1].min() for c in sets])
        for row, number in enumerate(self.in_flights):
            stages = self.stages(owner, number, fixed[:, [0, 1 + row]], link * self.many[number].rows, split)
            bounds = fill(stages, self.ground.prices.num_blocks, number, weights, most).seconds
            if away:
                bounds = np.maximum(bounds, self._with_one_away(stages, number, weights, most, np.isfinite(bounds)))
            found += [(float(b), c, row) for b, c in zip(bounds, sets, strict=True) if np.isfinite(b)]
        return sorted(found, key=lambda f: (f[0], sum(f[1]), f[2]))

    def _with_one_away(self, stages: Stages, number: int, weights: Weights, most: float, of: Flags) -> Floats:
        """[X] bounds of the sets `of`, were no Block dearer for want of room, and one has experts elsewhere all the same."""
        at, found = np.flatnonzero(of), np.zeros(len(of))
        free = replace(stages, dearer=np.stack([stages.alone, stages.many])).of(at)
        first = np.where(free.owner == 1, self._first_away, np.inf).min(axis=1)
        found[at] = fill(free, self.ground.prices.num_blocks, number, weights, most).seconds + self.weights.alone * first
        return found

    @cached_property
    def _first_away(self) -> Floats:
        """[N] what a Block with experts elsewhere takes longer than the quickest, at least, with one row."""
        times = self.alone.owner[:, 0]
        return np.asarray(times[:, 1:].min(axis=1, initial=np.inf) - times.min(axis=1))

    def stages(self, owner: Ints, number: int, fixed: Floats, link: Floats, split: bool) -> Stages:
        room, prices = np.maximum(self.ground.room(False, False), 0), self.ground.prices
        each = [least_prices(t, split, prices.whole / prices.expert) for t in (self.alone, self.many[number])]
        size = prices.core if split else prices.whole
        return Stages(
            owner=owner,
            most=np.broadcast_to(room // size, owner.shape),
            plenty=np.broadcast_to(room / prices.whole, owner.shape) if split else np.broadcast_to(room // size, owner.shape),
            alone=each[0][0],
            many=each[1][0],
            dearer=np.stack([each[0][1], each[1][1]]),
            ends=np.zeros(owner.shape),
            fixed=fixed,
            link=link,
        )

    def ends(self, counts: Counts, row: int) -> list[tuple[int, int, Ends]]:
        """Classes of every first and last Stage with what comes with them, their Hops at the least."""
        sums, most = self.paths.least[counts]
        owners, ground = self.devices_of(counts), self.ground
        number = self.in_flights[row]
        frames, found = float(self.software[owners].sum()), []
        for f, l in zip(*np.nonzero(np.isfinite(sums[0])), strict=True):
            first = ground.classes[f][0]
            last = ground.classes[l][1 if f == l and len(owners) > 1 else 0]
            busy, room = np.zeros(len(ground.devices)), ground.helper_room.copy()
            room[owners] = ground.room(False, False)[owners]
            busy[first] += self.many[number].ends(True, False)[first]
            busy[last] += self.many[number].ends(False, True)[last]
            room[first] = ground.room(True, first == last)[first]
            room[last] = ground.room(first == last, True)[last]
            alone, around = (frames + float(self.extras[r, f, l] + sums[r, f, l]) for r in (0, 1 + row))
            link = float(most[f, l]) * self.many[number].rows
            if (room[owners] >= ground.prices.core).all():
                found.append((int(f), int(l), Ends(first, last, alone, around, link, busy, room)))
        return found

    def program(self, counts: Counts, row: int) -> Program:
        number = self.in_flights[row]
        return Program(self.ground, tuple(self.devices_of(counts)), number, self.weights, self.alone, self.many[number])

    def real(self, counts: Counts, row: int, f: int, l: int, ends: Ends) -> Iterator[tuple[Path, Ends]]:
        """Each order of the Stages between these ends that is best for something."""
        sums = self.paths.least[counts][0]
        for path in self.paths.best(counts, f, l, 1 + row):
            alone = ends.alone - float(sums[0, f, l]) + path.alone_s
            around = ends.around - float(sums[1 + row, f, l]) + path.around_s
            close = abs(alone - ends.alone) + abs(around - ends.around) + abs(path.link_s - ends.link) <= LONGER * ends.around
            yield path, ends if close else replace(ends, alone=alone, around=around, link=path.link_s)

    def found(self, program: Program, path: Path, ends: Ends, solved: Solved) -> Found:
        left = {c: [d for d in members if d in program.owners] for c, members in enumerate(self.ground.classes)}
        inner = []
        for members in left.values():
            members[:] = [d for d in members if d not in (ends.first, ends.last)]
        for c in path.order[1:-1]:
            inner.append(left[c].pop(0))
        order = (ends.first, *inner, ends.last) if len(path.order) > 1 else (ends.first,)
        return Found(self.weights.of(solved.alone, solved.many), order, program, solved)
