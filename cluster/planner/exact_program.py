"""The integer program of one set of owners: how many Blocks of each kind each owner has, and where standby copies are.

min  weights.alone A + weights.many T,  A the seconds of one stream, T those of all Sessions:
     T >= in_flight x busy seconds of each Worker and link,  T >= the seconds around
N: Devices   O: owners   K: kinds of Block an owner   Y: O x K, T, copies, who stands by
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cluster.planner.exact_fill import Weights
from cluster.planner.exact_ground import Ends, Floats, Ground, Ints
from cluster.planner.exact_times import Times

SCALE = 1e5
"""What the program minimises is about this much, so that the solver's tolerances are small beside it."""
CLOSE = 1e-9
"""Of the seconds: what is better by less than this is equal."""
UNNOTICED = 1e-6
"""A weight that only decides between equals, and that the solver would take for an error of its own."""
NEVER = 1e12
"""More than any scaled seconds."""


@dataclass(frozen=True)
class Solved:
    """Blocks of each owner and kind [O, K], copies [sets of Rigs, N], and the seconds of one stream and of all Sessions."""

    blocks: Ints
    copies: Ints
    alone: float
    many: float


@dataclass(frozen=True)
class Program:
    """Of one set of owners with that many micro-batches under way.

    Args:
        alone, many: times with one row, and with those of a micro-batch.
        idle: as if nobody who is asked for experts had a Stage of its own: no more than what it takes with any other owners.
    """

    ground: Ground
    owners: tuple[int, ...]
    in_flight: int
    weights: Weights
    alone: Times
    many: Times
    idle: bool = False

    @cached_property
    def others(self) -> list[list[int]]:
        """The other Devices of each owner, in the order of `Kinds.places`."""
        return [[d for d in range(len(self.ground.devices)) if d != o] for o in self.owners]

    @cached_property
    def held(self) -> Floats:
        """[O, N, K] experts that each Device holds of a Block."""
        kinds = self.many.kinds
        held = np.zeros((len(self.owners), len(self.ground.devices) + 1, len(kinds.places)))
        for o, others in enumerate(self.others):
            for i in range(kinds.places.shape[1]):
                held[o, np.array([*others, -1])[kinds.places[:, i]], np.arange(len(kinds.places))] += kinds.counts[:, i]
        return held[:, :-1]

    @cached_property
    def alone_s(self) -> Floats:
        """[O, K] a Block with one row, nobody else busy."""
        return self.alone.owner[list(self.owners), 0]

    @cached_property
    def many_s(self) -> Floats:
        """[O, K] a Block with the rows of a micro-batch, whoever has a Stage busy."""
        kinds, size = self.many.kinds, len(self.ground.devices)
        busy = np.isin(np.arange(size), () if self.idle else self.owners).astype(np.int64)
        found = []
        for owner, others in zip(self.owners, self.others, strict=True):
            status = np.append(busy[others], 0)
            pattern = sum((status[kinds.places[:, i]] << i for i in range(kinds.places.shape[1])), np.zeros(len(kinds.places), int))
            found.append(self.many.owner[owner, pattern, np.arange(len(kinds.places))])
        return np.array(found)

    @cached_property
    def serving(self) -> list[list[frozenset[str]]]:
        """[O, K] the Rigs that serve a Block."""
        rigs = [d.rig for d in self.ground.devices]
        return [
            [frozenset({rigs[owner], *(rigs[d] for d in np.flatnonzero(self.held[o, :, k]))}) for k in range(self.held.shape[2])]
            for o, owner in enumerate(self.owners)
        ]

    @cached_property
    def rig_sets(self) -> list[frozenset[str]]:
        """What different sets of Rigs serve Blocks; none where no copies are asked for."""
        sets = {s for row in self.serving for s in row} if self.ground.load.standby else set()
        return sorted(sets, key=sorted)

    @cached_property
    def scale(self) -> float:
        return SCALE / (self.ground.prices.num_blocks * float(self.many_s.min() + self.alone_s.min()))

    @cached_property
    def cost(self) -> Floats:
        cost = np.zeros(self.columns)
        if self.weights.alone > UNNOTICED:
            cost[: self.alone_s.size] = self.weights.alone * self.scale * self.alone_s.ravel()
        if self.weights.many > UNNOTICED:
            cost[self.alone_s.size] = self.weights.many
        return cost

    @property
    def columns(self) -> int:
        size = len(self.ground.devices)
        return self.alone_s.size + 1 + len(self.rig_sets) * size + (size if self.rig_sets else 0)

    @cached_property
    def rows(self) -> Floats:
        """Left sides of all that must not exceed `right`."""
        owners, size, kinds = len(self.owners), len(self.ground.devices), self.held.shape[2]
        blocks = owners * kinds
        at, mine = np.repeat(np.arange(owners), kinds), np.zeros((size, blocks))
        mine[np.repeat(self.owners, kinds), np.arange(blocks)] = 1
        held = self.held.transpose(1, 0, 2).reshape(size, blocks)
        prices, rows = self.ground.prices, np.zeros((3 * size + owners + 3, self.columns))
        weight = prices.core / prices.expert + prices.num_experts - self.held.sum(axis=1).ravel()
        rows[:size, :blocks] = mine * weight + held
        busy = mine * self.many_s.ravel() + held * self.many.work[:, None]
        rows[size : 2 * size, :blocks] = self.in_flight * self.scale * busy
        rows[2 * size, :blocks] = self.scale * self.many_s.ravel()
        rows[size : 2 * size + 2, blocks] = -1
        rows[2 * size + 2 : 2 * size + 2 + owners, :blocks] = -(at == np.arange(owners)[:, None]).astype(float)
        rows[2 * size + 2 + owners : 3 * size + 2 + owners, :blocks] = -held
        rows[-1, blocks] = 1
        if self.rig_sets:
            self._add_copies(rows, blocks)
            rows = np.concatenate([rows, self._standing_by(blocks)])
        return rows

    @property
    def row_units(self) -> Floats:
        """By which rows of seconds are multiplied to be about 1."""
        size, units = len(self.ground.devices), np.ones(len(self.rows))
        units[size : 2 * size + 2] = units[3 * size + 2 + len(self.owners)] = 1 / SCALE
        return units

    def _add_copies(self, rows: Floats, blocks: int) -> None:
        size, prices = len(self.ground.devices), self.ground.prices
        helping = self.ground.attainable(self.ground.helper_room)
        standing = self.ground.attainable(self.ground.room(False, False))
        for d in range(size):
            copies = blocks + 1 + np.arange(len(self.rig_sets)) * size + d
            rows[d, copies] = prices.whole / prices.expert
            rows[2 * size + 2 + len(self.owners) + d, copies] = -1
            if d not in self.owners:
                rows[d, self.columns - size + d] = (helping[d] - standing[d]) / prices.expert

    def _standing_by(self, blocks: int) -> Floats:
        """Whoever has a copy stands by."""
        size = len(self.ground.devices)
        rows = np.zeros((size, self.columns))
        for d in range(size):
            rows[d, blocks + 1 + np.arange(len(self.rig_sets)) * size + d] = 1
            rows[d, self.columns - size + d] = -self.ground.prices.num_blocks
        return rows

    def right(self, ends: Ends) -> Floats:
        size, ground = len(self.ground.devices), self.ground
        asked = [1.0 if d in ground.asked - set(self.owners) else 0.0 for d in range(size)]
        most = min(self.weights.most * self.scale, NEVER)
        return np.concatenate(
            [
                ground.attainable(ends.room) / ground.prices.expert,
                -self.in_flight * self.scale * ends.busy,
                [-self.scale * ends.around, -self.in_flight * self.scale * ends.link],
                -np.ones(len(self.owners)),
                -np.array(asked),
                [most],
                np.zeros(size if self.rig_sets else 0),
            ]
        )

    @cached_property
    def equal(self) -> tuple[Floats, Floats]:
        """All Blocks have an owner; each has a copy, where that is asked for."""
        blocks, size = self.alone_s.size, len(self.ground.devices)
        rows, right = np.zeros((1 + len(self.rig_sets), self.columns)), np.zeros(1 + len(self.rig_sets))
        rows[0, :blocks], right[0] = 1, self.ground.prices.num_blocks
        flat = [s for row in self.serving for s in row] if self.rig_sets else []
        for i, rigs in enumerate(self.rig_sets):
            rows[1 + i, :blocks] = [float(s == rigs) for s in flat]
            for d, device in enumerate(self.ground.devices):
                if device.rig not in rigs:
                    rows[1 + i, blocks + 1 + i * size + d] = -1
        return rows, right

    @cached_property
    def upper(self) -> Floats:
        """The most of each variable: no copy on a Rig that serves the Block."""
        upper = np.full(self.columns, np.inf)
        size, start = len(self.ground.devices), self.alone_s.size + 1
        for i, rigs in enumerate(self.rig_sets):
            upper[start + i * size : start + (i + 1) * size] = [0 if d.rig in rigs else np.inf for d in self.ground.devices]
        if self.rig_sets:
            upper[-size:] = 1
        return upper

    def checked(self, ends: Ends, values: Floats) -> Solved | None:
        """A solution in whole numbers with its exact seconds; None where rounding took it beyond somebody's memory."""
        blocks, size = np.rint(values[: self.alone_s.size]).astype(np.int64).reshape(self.alone_s.shape), len(self.ground.devices)
        copies = np.rint(values[self.alone_s.size + 1 :]).astype(np.int64)
        placed = copies[: len(self.rig_sets) * size].reshape(-1, size)
        return Solved(blocks, placed, *self.seconds(ends, blocks)) if self.fits(ends, blocks, placed) else None

    def seconds(self, ends: Ends, blocks: Ints) -> tuple[float, float]:
        """Of one stream, and of all Sessions."""
        busy = ends.busy + np.einsum("odk,ok->d", self.held, blocks) * self.many.work
        np.add.at(busy, list(self.owners), (blocks * self.many_s).sum(axis=1))
        alone = ends.alone + float((blocks * self.alone_s).sum())
        around = ends.around + float((blocks * self.many_s).sum())
        return alone, max(self.in_flight * max(float(busy.max()), ends.link), around)

    def fits(self, ends: Ends, blocks: Ints, copies: Ints) -> bool:
        """Whether nobody holds more than there is room for, to the byte."""
        prices, held = self.ground.prices, np.rint(np.einsum("odk,ok->d", self.held, blocks)).astype(np.int64)
        used = held * prices.expert
        for o, owner in enumerate(self.owners):
            away = int((blocks[o] * self.many.kinds.away).sum())
            used[owner] += int(blocks[o].sum()) * prices.whole - away * prices.expert
        if len(copies):
            standing = copies.sum(axis=0)
            used += standing * prices.whole
            extra = prices.fixed(False, False) - prices.helper
            used += np.array([extra * (n > 0) * (d not in self.owners) for d, n in enumerate(standing)], np.int64)
        return bool((used <= ends.room).all())
