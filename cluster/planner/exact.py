"""The best single Route of a home's swarm, with a bound: which Devices have Stages, in which order, with which Blocks and experts.

Every set of owners with every number of micro-batches under way gets a bound; those that could be best are solved, the most
promising first, until no bound is below the best that was found. Of whole Blocks that is the optimum. With ExpertShards it is
for up to `SHORT` Blocks and `KINDS` kinds; else the search ends early, and `Best.least` says what it may have missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cluster.planner.exact_best import LONGER, Best, Found
from cluster.planner.exact_fill import Filled, Stages, Weights, fill
from cluster.planner.exact_ground import Ends, Floats, Ground, Ints
from cluster.planner.exact_paths import Counts, Path, Paths
from cluster.planner.exact_program import CLOSE, UNNOTICED, Program, Relaxed, Solved
from cluster.planner.exact_times import Kinds, Times, least_prices

FEW = 24
"""Kinds of Blocks that are tried before all that could be better are."""
SHORT, KINDS = 6, 400
"""Blocks of a model, and kinds of a Block, up to which Plans with ExpertShards are exact too."""
NEAR = 1e-3
"""For more, what must be gained to look for them: a share of the seconds that no prediction tells apart."""
PROGRAMS = 10
"""For more Blocks, integer programs after which the best so far is taken."""


@dataclass(frozen=True)
class RouteSearch:
    """For one Route's best on one ground.

    Args:
        times: by rows, shared between searches on grounds with the same Devices.
    """

    ground: Ground
    weights: Weights
    in_flights: tuple[int, ...]
    programs: int = PROGRAMS
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

    @cached_property
    def close(self) -> float:
        """How near to the optimum a Plan with ExpertShards is."""
        return CLOSE if self.ground.prices.num_blocks <= SHORT and len(self.kinds.places) <= KINDS else NEAR

    def devices_of(self, counts: Counts) -> list[int]:
        return [d for c, n in zip(self.ground.classes, counts, strict=True) for d in c[:n]]

    def best(self, cutoff: float = np.inf) -> Best:
        """Its `found` is None where nothing fits, or nothing is better than `cutoff` (of `Weights.of`)."""
        best = Best(cutoff, self.close, self.programs)
        sets = [c for c in self.paths.owners if self._could_fit(c)] if self.ground.devices else []
        if not sets:
            return Best(np.inf, self.close, 0)
        owner = self._owner(sets)
        if not self.ground.load.standby:
            for bound, counts, row in self._bounded(sets, owner, split=False, away=False, most=best.most):
                if bound > best.most:
                    break
                if self.ground.asked <= set(self.devices_of(counts)):
                    self._whole(counts, row, best)
        if self.kinds.places.shape[1] or self.ground.load.standby:
            for bound, counts, row in self._bounded(sets, owner, split=True, away=not self.ground.load.standby, most=best.below):
                if bound > best.below:
                    break
                if best.spent:
                    best.pass_over(bound)
                    break
                self._split(counts, row, best)
        return best

    def _could_fit(self, counts: Counts) -> bool:
        ground, prices = self.ground, self.ground.prices
        owners = self.devices_of(counts)
        room = ground.room(False, False)
        held = ground.helper_room // prices.expert * prices.expert
        total = int(held.sum()) + int((room[owners] - held[owners]).sum())
        return total >= prices.num_blocks * prices.whole

    def bounds(self) -> list[tuple[float, Counts, int]]:
        """As `_bounded`, of every set."""
        sets = [c for c in self.paths.owners if self._could_fit(c)]
        return self._bounded(sets, self._owner(sets), split=True, away=False) if sets else []

    def _owner(self, sets: Sequence[Counts]) -> Ints:
        owner = np.zeros((len(sets), len(self.ground.devices)), np.int64)
        for x, counts in enumerate(sets):
            owner[x, self.devices_of(counts)] = 1
        return owner

    def _bounded(
        self, sets: Sequence[Counts], owner: Ints, split: bool, away: bool, most: float = np.inf
    ) -> list[tuple[float, Counts, int]]:
        """(bound, owners, place in `in_flights`) of those that are not above `most`, lowest first."""
        found: list[tuple[float, Counts, int]] = []
        weights = replace(self.weights, many=self.weights.many * (self.weights.many > UNNOTICED))
        fixed = np.array([(self.paths.least[c][0] + self.extras).min(axis=(1, 2)) for c in sets]) + (owner @ self.software)[:, None]
        link = np.array([self.paths.least[c][1].min() for c in sets])
        for row, number in enumerate(self.in_flights):
            stages = self._stages(owner, number, fixed[:, [0, 1 + row]], link * self.many[number].rows, split)
            bounds = fill(stages, self.ground.prices.num_blocks, number, weights, most).seconds
            if away:
                free = replace(stages, dearer=np.stack([stages.alone, stages.many]))
                cheapest = fill(free, self.ground.prices.num_blocks, number, weights, most).seconds
                first = np.where(owner == 1, self._first_away, np.inf).min(axis=1)
                bounds = np.maximum(bounds, cheapest + self.weights.alone * first)
            found += [(float(b), c, row) for b, c in zip(bounds, sets, strict=True) if np.isfinite(b)]
        return sorted(found, key=lambda f: (f[0], sum(f[1]), f[2]))

    @cached_property
    def _first_away(self) -> Floats:
        """[N] what a Block with experts elsewhere takes longer than the quickest, at least, with one row."""
        times = self.alone.owner[:, 0]
        return np.asarray(times[:, 1:].min(axis=1, initial=np.inf) - times.min(axis=1))

    def _stages(self, owner: Ints, number: int, fixed: Floats, link: Floats, split: bool) -> Stages:
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

    def _ends(self, counts: Counts, row: int) -> list[tuple[int, int, Ends]]:
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

    def _program(self, counts: Counts, row: int) -> Program:
        number = self.in_flights[row]
        return Program(self.ground, tuple(self.devices_of(counts)), number, self.weights, self.alone, self.many[number])

    def _whole(self, counts: Counts, row: int, best: Best) -> None:
        """Whole Blocks only."""
        program, every = self._program(counts, row), self._ends(counts, row)
        owners = list(program.owners)
        if not every:
            return
        filled = self._filled(counts, row, [e for _, _, e in every])
        for x in np.argsort(filled.seconds, kind="stable"):
            if filled.seconds[x] > best.most or not np.isfinite(filled.seconds[x]):
                return
            f, l, ends = every[x]
            for path, real in self._real(counts, row, f, l, ends):
                again = self._filled(counts, row, [real])
                if again.seconds[0] > best.most or not np.isfinite(again.seconds[0]):
                    continue
                blocks = np.zeros((len(owners), self.kinds.places.shape[0]), np.int64)
                blocks[:, 0] = again.blocks[0, owners]
                alone, many = program.seconds(real, blocks)
                value = self.weights.of(alone, many)
                solved: Solved | None = Solved(blocks, np.zeros((0, 0), np.int64), alone, many)
                if value > again.seconds[0] * (1 + LONGER):
                    kept = np.append(np.arange(len(owners)) * self.kinds.places.shape[0], program.alone_s.size)
                    solved, _ = program.solve(real, kept, best.most, CLOSE)
                if solved:
                    best.offer(self._found(program, path, real, solved))

    def _filled(self, counts: Counts, row: int, every: Sequence[Ends]) -> Filled:
        number, owner = self.in_flights[row], np.repeat(self._owner([counts]), len(every), axis=0)
        fixed = np.array([[e.alone, e.around] for e in every])
        stages = self._stages(owner, number, fixed, np.array([e.link for e in every]), split=False)
        most = np.maximum(np.array([e.room for e in every]), 0) // self.ground.prices.whole
        stages = replace(stages, most=most, plenty=most.astype(float), ends=np.array([e.busy for e in every]))
        return fill(stages, self.ground.prices.num_blocks, number, self.weights)

    def _real(self, counts: Counts, row: int, f: int, l: int, ends: Ends) -> Iterator[tuple[Path, Ends]]:
        """Each order of the Stages between these ends that is best for something."""
        sums = self.paths.least[counts][0]
        for path in self.paths.best(counts, f, l, 1 + row):
            alone = ends.alone - float(sums[0, f, l]) + path.alone_s
            around = ends.around - float(sums[1 + row, f, l]) + path.around_s
            close = abs(alone - ends.alone) + abs(around - ends.around) + abs(path.link_s - ends.link) <= LONGER * ends.around
            yield path, ends if close else replace(ends, alone=alone, around=around, link=path.link_s)

    def _split(self, counts: Counts, row: int, best: Best) -> None:
        """With experts elsewhere, where that is better than the best so far."""
        program, every = self._program(counts, row), self._ends(counts, row)
        best.spend(columns=program.alone_s.size)
        relaxed = program.relaxed([e for _, _, e in every]) if every else None
        if relaxed is None:
            return
        for x in np.argsort(relaxed.bounds, kind="stable"):
            for most in (FEW, len(relaxed.reduced))[: 2 if self.close == CLOSE else 1]:
                kept = self._kept(program, relaxed, int(x), best, most)
                if kept is None:
                    break
                if best.spent:
                    best.pass_over(float(relaxed.bounds[x]))
                    break
                whole = self._tried(program, counts, row, every[x], kept, best)
                if not whole or (self.close > CLOSE and len(kept) >= most):
                    best.pass_over(float(relaxed.bounds[x]))
                if len(kept) < most:
                    break

    def _kept(self, program: Program, relaxed: Relaxed, x: int, best: Best, most: int) -> Ints | None:
        """The variables, at most so many and the likeliest first, that a better Plan may have; None where there is none."""
        slack = best.below - relaxed.bounds[x]
        if slack < 0:
            return None
        blocks = program.alone_s.size
        likely = np.argsort(relaxed.reduced[:blocks], kind="stable")[:most]
        likely = np.sort(likely[relaxed.reduced[likely] <= slack])
        if not (program.rig_sets or self.ground.asked or (likely % self.kinds.places.shape[0]).any()):
            return None
        return np.append(likely, np.arange(blocks, len(relaxed.reduced)))

    def _tried(self, program: Program, counts: Counts, row: int, at: tuple[int, int, Ends], kept: Ints, best: Best) -> bool:
        """Whether the solver came to an end."""
        f, l, ends = at
        best.spend(programs=1)
        solved, ended = program.solve(ends, kept, best.below, self.close)
        if solved is None:
            return ended
        for path, real in self._real(counts, row, f, l, ends):
            found: Solved | None = solved
            if self.close > CLOSE:
                found = Solved(solved.blocks, solved.copies, *program.seconds(real, solved.blocks))
            elif (real.alone, real.around, real.link) != (ends.alone, ends.around, ends.link):
                found, also = program.solve(real, kept, best.below, self.close)
                ended = ended and also
            if found:
                best.offer(self._found(program, path, real, found))
        return ended

    def _found(self, program: Program, path: Path, ends: Ends, solved: Solved) -> Found:
        left = {c: [d for d in members if d in program.owners] for c, members in enumerate(self.ground.classes)}
        inner = []
        for members in left.values():
            members[:] = [d for d in members if d not in (ends.first, ends.last)]
        for c in path.order[1:-1]:
            inner.append(left[c].pop(0))
        order = (ends.first, *inner, ends.last) if len(path.order) > 1 else (ends.first,)
        return Found(self.weights.of(solved.alone, solved.many), order, program, solved)
