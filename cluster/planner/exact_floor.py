"""What every set of owners costs at least, from the prices that the linear program of one of them puts on memory and time.

Memory, a Worker's time and the way round have a price; what a Block costs an owner at these prices is the least over its kinds, and
what all memory is worth is taken off again (Lagrange). A bound for any prices, and a good one for owners like those they are of.
X: sets of owners   N: Devices   C: classes of alike Devices   R: numbers of rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cluster.planner.exact_ground import Floats, Ints
from cluster.planner.exact_paths import Counts
from cluster.planner.exact_program import Program
from cluster.planner.exact_sets import Sets
from cluster.planner.exact_solver import Relaxed

NEVER_S = 1e6
"""Longer than anything takes, and still a number that can be weighed with 0."""


@dataclass(frozen=True)
class Floor:
    """Bounds for one number of micro-batches under way.

    Args:
        owner: [X, N] 1 where a Device has a Stage.
    """

    sets: Sets
    counts: Sequence[Counts]
    owner: Ints
    row: int

    def seconds(self, prices: Relaxed) -> Floats:
        """[X] at these prices."""
        ground, weights, number = self.sets.ground, self.sets.weights, self.sets.in_flights[self.row]
        each = self._each(prices)
        own = np.where(self.owner == 1, each, np.inf)
        least = own.min(axis=1)
        blocks = ground.prices.num_blocks * least + np.where(self.owner == 1, each - least[:, None], 0).sum(axis=1)
        middle, helping = self._rooms[0], ground.attainable(ground.helper_room) / ground.prices.expert
        worth = np.where(self.owner == 1, middle, helping) @ prices.memory
        frames = (weights.alone + prices.around) * (self.owner @ self.sets.software)
        most = prices.most * weights.most if prices.most else 0.0
        return np.asarray(blocks - worth + frames + self._ends(prices, number) - most, np.float64)

    @cached_property
    def _all(self) -> Program:
        """Everybody owns Blocks, and nobody waits."""
        number = self.sets.in_flights[self.row]
        every, many = tuple(range(len(self.sets.ground.devices))), self.sets.many[number]
        return Program(self.sets.ground, every, number, self.sets.weights, self.sets.alone, many, idle=True)

    @cached_property
    def _rooms(self) -> Floats:
        """[4, N] experts that Stages have room for with neither end, the first, the last, and both."""
        ground = self.sets.ground
        rooms = [ground.attainable(ground.room(f, l)) for f, l in ((False, False), (True, False), (False, True), (True, True))]
        return np.array(rooms) / ground.prices.expert

    @cached_property
    def _hops(self) -> tuple[Floats, Floats, Floats]:
        """[X, C, C] the least sums of Hops with one row and with those of a micro-batch, and the busiest link."""
        found = [self.sets.paths.least[c] for c in self.counts]
        rows = self.sets.many[self.sets.in_flights[self.row]].rows
        sums, around, link = (np.array(a) for a in zip(*((s[0], s[1 + self.row], rows * m) for s, m in found), strict=True))
        return np.minimum(sums, NEVER_S), np.minimum(around, NEVER_S), np.minimum(link, NEVER_S)

    def _each(self, prices: Relaxed) -> Floats:
        """[N] a Block of each owner, of its cheapest kind."""
        program, size = self._all, len(self.sets.ground.devices)
        paid = np.concatenate([prices.memory, prices.busy / program.scale, [prices.around / program.scale]])
        reduced = self.sets.weights.alone * program.alone_s.ravel() + paid @ program.rows[: 2 * size + 1, : program.alone_s.size]
        return np.asarray(reduced.reshape(size, -1).min(axis=1), np.float64)

    def _ends(self, prices: Relaxed, number: int) -> Floats:
        """[X] Hops, embedding and head, of the first and last Stage with the least."""
        sums, around, link = self._hops
        alone, every = self.sets.weights.alone, self.sets.extras
        fixed = alone * (every[0] + sums) + prices.around * (every[1 + self.row] + around) + number * prices.link * link
        times, at = self.sets.many[number], [c[0] for c in self.sets.ground.classes]
        kinds = ((True, False, 1), (False, True, 2), (True, True, 3))
        first, last, both = (self._end(prices, number, times.ends(f, l), e)[at] for f, l, e in kinds)
        pairs = first[:, None] + last[None, :]
        alone_at = np.arange(len(at)), np.arange(len(at))
        pairs[alone_at] = np.minimum(pairs[alone_at], both)
        return np.asarray((fixed + pairs).min(axis=(1, 2)), np.float64)

    def _end(self, prices: Relaxed, number: int, busy: Floats, end: int) -> Floats:
        """[N] what a Stage with that end pays for the room and the time that it takes."""
        return np.asarray(prices.memory * (self._rooms[0] - self._rooms[end]) + prices.busy * number * busy, np.float64)
