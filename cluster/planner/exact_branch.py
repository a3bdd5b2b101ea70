"""Branching over how many Blocks each owner has, and over first and last Stages: what no Plan of some owners can beat.

Kinds of Blocks stay in fractions until the numbers are whole. It proves many sets of owners in a few dozen linear programs over
which HiGHS, which looks for Plans all the while, takes seconds; where many Plans are as good as each other it is the other way
round. See `exact_split` for which is asked when.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

import numpy as np

from cluster.planner.exact_best import Best
from cluster.planner.exact_ground import Flags
from cluster.planner.exact_near import Near
from cluster.planner.exact_rooms import Rooms

WHOLE = 1e-6
"""Of a number of Blocks, and of a way: what rounding explains."""
LEAF = 4
"""Times its size that an integer program over kinds of Blocks alone counts for."""


class Solve(Protocol):
    """Offers the best Plan in some rooms; returns seconds that nothing in them betters."""

    def __call__(self, rooms: Rooms) -> float: ...


@dataclass
class Branches:
    """One search, which can be gone on with.

    Args:
        best: the best Plan so far, which `solve` may better.
        solve: for rooms in which nothing is in fractions but kinds of Blocks.
        columns: of all linear programs so far.
    """

    start: Near
    best: Best
    solve: Solve
    columns: int = 0

    def __post_init__(self) -> None:
        self._order = count(1)
        self._open = [(self.start.least, 0, self.start)]
        self._given_up = np.inf

    @property
    def least(self) -> float:
        """Seconds that no Plan better than the best so far betters; infinite where there is none."""
        return min(self._next, self._given_up)

    @property
    def _next(self) -> float:
        return self._open[0][0] if self._open else np.inf

    def go_on(self, columns: int) -> None:
        """Until nothing is open that may be better, an integer program did not end, or about so many more columns were solved."""
        until = self.columns + columns
        while self._next <= self.best.below < self._given_up and self.columns < until:
            _, _, parent = heappop(self._open)
            parts = _parted(parent)
            slack = self.best.below - parent.least
            if not parts:
                self._leaf(parent, parent.rooms.fewer(parent.reduced, slack))
            for part in parts:
                self._push(Near.of(parent.rooms.fewer(np.where(part, parent.reduced, np.inf), slack)))

    def _leaf(self, near: Near, rooms: Rooms) -> None:
        self.columns += LEAF * rooms.size
        least = max(near.least, self.solve(rooms))
        self._given_up = min(self._given_up, least)

    def _push(self, near: Near) -> None:
        self.columns += near.rooms.size
        heappush(self._open, (near.least, next(self._order), near))


def _parted(near: Near) -> list[Flags]:
    """[V + Z + P] what stays on either side, where the solution is on neither; none where only kinds of Blocks are in fractions."""
    rooms, v, z = near.rooms, len(near.rooms.kept), len(near.rooms.numbers)
    numbers, ways, at = near.values[v : v + z], near.values[v + z :], rooms.numbers[:, 0]
    spread = [float(numbers[at == o] @ (rooms.numbers[at == o, 2] - b) ** 2) for o, b in enumerate(near.blocks)]
    owner, way = int(np.argmax(spread)), int(ways.argmax())
    among, side = np.zeros(rooms.size, np.bool_), np.zeros(rooms.size, np.bool_)
    if spread[owner] > WHOLE:
        among[v : v + z] = at == owner
        side[v : v + z] = among[v : v + z] & (rooms.numbers[:, 2] <= near.blocks[owner])
    elif ways[way] < 1 - WHOLE:
        among[v + z :] = side[v + z + way] = True
    else:
        return []
    return [~among | side, ~side]
