"""Many swarms-of-Blocks problems at once, relaxed: every Hop is as short as the shortest that could lead there.

Then the order of the Rigs does not matter, and a dynamic programme over (Rig, Device, Blocks covered, ends taken) is exact for what
is left: which Devices have Stages, of how many Blocks, and which of them have the ends. Its least sums are lower bounds of every
Plan's; where all links between Rigs are alike, they are reached.

B: problems   D: Devices   R: Rigs   L: Blocks   4: ends taken so far (none, FIRST, LAST, BOTH)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.planner.tables import BOTH, FIRST, LAST, MIDDLE, Counts, Floats

ROLES = np.array([MIDDLE] * 4 + [FIRST] * 2 + [LAST] * 2)
"""What one Device of several may be, from each state of the ends: eight ways in all."""
FROM = np.array([0, 1, 2, 3, 0, 2, 0, 1])
TO = FROM | ROLES

Seats = list[tuple[int, int, int]]
"""(Device, its Blocks, its ends)."""


@dataclass(frozen=True)
class Relaxed:
    """B problems over the same Devices.

    Args:
        rigs: the Devices of each Rig; all Devices in all.
        block: seconds a Block, of those that a Device holds whole [B, D].
        beyond: seconds more for a Block that it does not hold whole [B, D].
        fixed: seconds for having a Stage with each of the ends [B, 4, D].
        whole: Blocks that a Device can hold whole beside each of the ends [B, 4, D].
        caps: Blocks that it can have at all beside each of the ends [B, 4, D].
        enter, inside: the shortest Hop to a Rig from another one, and between two of its Devices [B, R].
    """

    rigs: Sequence[Sequence[int]]
    block: Floats
    beyond: Floats
    fixed: Floats
    whole: Counts
    caps: Counts
    enter: Floats
    inside: Floats
    num_blocks: int

    def solve(self) -> Solved:
        """All problems."""
        outside = np.full((len(self.block), 4, self.num_blocks + 1), np.inf)
        outside[:, MIDDLE, 0] = 0.0
        visits: list[_Visit] = []
        for rig, members in enumerate(self.rigs):
            fresh, used = self._entering(outside, rig), [np.full_like(outside, np.inf)]
            for device in members:
                used.append(self._with(device, np.minimum(fresh, used[-1] + self.inside[:, rig, None, None]), used[-1]))
            visits.append(_Visit(outside, fresh, tuple(used)))
            outside = np.minimum(outside, self._leaving(used[-1], rig))
        return Solved(self, outside[:, BOTH, -1], self._alone(), tuple(visits))

    def _alone(self) -> Floats:
        """Seconds of each Device with all Blocks [B, D]."""
        part = np.maximum(0, self.num_blocks - self.whole[:, BOTH])
        own: Floats = self.num_blocks * self.block + part * self.beyond + self.fixed[:, BOTH]
        return np.where(self.caps[:, BOTH] >= self.num_blocks, own, np.inf)

    def _entering(self, outside: Floats, rig: int) -> Floats:
        """The Hop to a Rig is paid on entering it where the first Stage is behind us, and on leaving where it is not there."""
        paid = outside.copy()
        paid[:, [FIRST, BOTH]] += self.enter[:, rig, None, None]
        return paid

    def _leaving(self, used: Floats, rig: int) -> Floats:
        paid = used.copy()
        paid[:, [MIDDLE, LAST]] += self.enter[:, rig, None, None]
        return paid

    def _with(self, device: int, before: Floats, used: Floats) -> Floats:
        """The states after a Device was offered a Stage."""
        ways = self.stage(device, before[:, FROM]) + self.fixed[:, ROLES, device, None]
        found = used.copy()
        for way, to in enumerate(TO):
            np.minimum(found[:, to], ways[:, way], out=found[:, to])
        return found

    def stage(self, device: int, ways: Floats) -> Floats:
        """The least sums with 1 to `caps` Blocks more [B, 8, L + 1]: some whole, then some that are not."""
        whole, caps = self.whole[:, ROLES, device], self.caps[:, ROLES, device]
        block = self.block[:, device, None]
        first = _window(ways, whole, block)
        if bool((caps <= whole).all()):
            return first
        start = np.minimum(first, _at_least_one(ways, whole, caps, block, self.beyond[:, device, None]))
        more = _window(start, np.maximum(caps - np.maximum(whole, 1), 0), block + self.beyond[:, device, None])
        least: Floats = np.minimum(start, more)
        return least


def _at_least_one(ways: Floats, whole: Counts, caps: Counts, block: Floats, beyond: Floats) -> Floats:
    """One Block that is not whole, where a Device holds none whole."""
    shifted = np.full_like(ways, np.inf)
    shifted[..., 1:] = ways[..., :-1] + (block + beyond)[..., None]
    return np.where(((whole == 0) & (caps > 0))[..., None], shifted, np.inf)


def _window(ways: Floats, caps: Counts, block: Floats) -> Floats:
    """The least of ways[b - n] + n * block over n in 1..caps, by doubling windows: each minimum is of two powers of two."""
    width = ways.shape[-1]
    along = block[..., None] * np.arange(width)
    levels = [ways - along]
    caps = np.minimum(caps, width - 1)
    while 2 ** len(levels) <= caps.max():
        last, reach = levels[-1], 2 ** (len(levels) - 1)
        shifted = np.full_like(last, np.inf)
        shifted[..., reach:] = last[..., :-reach]
        levels.append(np.minimum(last, shifted))
    level = np.maximum(np.frexp(np.maximum(caps, 1))[1] - 1, 0)
    stack = np.stack(levels)
    b, w = np.ogrid[: ways.shape[0], : ways.shape[1]]
    chosen = stack[level, b, w]
    place = np.arange(width)
    near = np.full_like(ways, np.inf)
    near[..., 1:] = chosen[..., :-1]
    back = place - 1 - (caps - 2**level)[..., None]
    far = np.where(back >= 0, np.take_along_axis(chosen, np.maximum(back, 0), axis=-1), np.inf)
    least: Floats = np.where((caps > 0)[..., None], np.minimum(near, far) + along, np.inf)
    return least


@dataclass(frozen=True)
class _Visit:
    """The states around one Rig.

    Args:
        outside: before it [B, 4, L + 1].
        fresh: on it, without a Stage there.
        used: with a Stage there, before each of its Devices and after the last.
    """

    outside: Floats
    fresh: Floats
    used: tuple[Floats, ...]


@dataclass(frozen=True)
class Solved:
    """The least sums of all problems, and how they are reached.

    Args:
        several: of several Devices [B]; infinite where the Blocks do not fit.
        alone: of each Device alone [B, D].
    """

    problem: Relaxed
    several: Floats
    alone: Floats
    visits: tuple[_Visit, ...]

    @property
    def sums(self) -> Floats:
        """The least of all [B]."""
        least: Floats = np.minimum(self.several, self.alone.min(axis=1))
        return least

    def seats(self, index: int) -> Seats:
        """Who has Stages in one of the problems, which has a finite sum; in no order."""
        if self.alone[index].min() <= self.several[index]:
            return [(int(np.argmin(self.alone[index])), self.problem.num_blocks, BOTH)]
        found: Seats = []
        state, b = BOTH, self.problem.num_blocks
        after = [*(visit.outside for visit in self.visits[1:]), None]
        for rig in reversed(range(len(self.visits))):
            following, visit = after[rig], self.visits[rig]
            skipped = visit.outside[index, state, b]
            if np.isfinite(skipped) and skipped <= (self.several[index] if following is None else following[index, state, b]):
                continue
            seats, state, b = self._on(rig, index, state, b)
            found += seats
        return found

    def _on(self, rig: int, index: int, state: int, b: int) -> tuple[Seats, int, int]:
        """The seats on one Rig that has some, and the state before it."""
        found: Seats = []
        visit, members = self.visits[rig], self.problem.rigs[rig]
        for place in reversed(range(len(members))):
            before = visit.used[place][index]
            if before[state, b] <= visit.used[place + 1][index, state, b]:
                continue
            further = before + self.problem.inside[index, rig]
            fresh = visit.fresh[index]
            way, n = self._way(members[place], index, np.minimum(fresh, further), (state, b))
            found.append((members[place], n, int(ROLES[way])))
            state, b = int(FROM[way]), b - n
            if fresh[state, b] <= further[state, b]:
                break
        return found, state, b

    def _way(self, device: int, index: int, before: Floats, to: tuple[int, int]) -> tuple[int, int]:
        """Which of the eight ways, and how many Blocks, led to a state."""
        state, b = to
        problem, best = self.problem, (np.inf, 0, 0)
        for way in np.flatnonzero(state == TO):
            role = ROLES[way]
            most = min(int(problem.caps[index, role, device]), b)
            for n in range(1, most + 1):
                part = max(0, n - int(problem.whole[index, role, device]))
                own = n * problem.block[index, device] + part * problem.beyond[index, device] + problem.fixed[index, role, device]
                best = min(best, (before[FROM[way], b - n] + own, int(way), n))
        return best[1], best[2]
