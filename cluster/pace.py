"""Whether a Device reads slower than it did: decided from what its Worker counts while it serves. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

SLOWER = 1.4
"""So many times the best that a Device showed under a Plan is slow."""
ROUNDS = 3
"""So many looks in a row decide."""
ROWS = 8
"""Micro-batches of one row between two looks that count; fewer are chance."""
CHANGED = 1.2
"""A slow Device that changes by less goes on at the factor that was told."""


@dataclass(frozen=True)
class Work:
    """What a Worker counted since its start: micro-batches of one row, their seconds, the bytes that they read."""

    count: int = 0
    seconds: float = 0.0
    num_bytes: int = 0


@dataclass(frozen=True)
class Pace:
    """What one Device showed under one Plan.

    Args:
        epoch: of that Plan.
        since: what was counted at the last look that counted.
        best_s: the fewest seconds a byte of any look; 0 before the first.
        ratios: the last looks, in times of the best.
        slowed: how many times slower it serves than it did; 1 where it does not.
        apart: times its best that it took when that was found: more than `slowed` by what others on its cores explain.
    """

    epoch: int = 0
    since: Work = Work()
    best_s: float = 0.0
    ratios: tuple[float, ...] = ()
    slowed: float = 1.0
    apart: float = 1.0

    def seen(self, epoch: int, work: Work, sharers: int = 1) -> Pace:
        """After one more look. Another Plan, or a process that was started anew, begins from where this one ended.

        Args:
            sharers: Devices that compute on the same cores, itself included. They may make it as many times slower by taking
                turns, or not at all where one Session goes from one to the next: what they can explain is never called slowed,
                and no more is told than what they cannot.
        """
        if epoch != self.epoch or work.count < self.since.count:
            return Pace(epoch, work, slowed=self.slowed, apart=self.apart)
        rows, read = work.count - self.since.count, work.num_bytes - self.since.num_bytes
        if rows < ROWS or read <= 0:
            return self
        now_s = (work.seconds - self.since.seconds) / read
        # Seconds a byte of two Plans differ a little, so that a Plan's first look is taken for what was known before it.
        best_s = min(self.best_s, now_s) if self.best_s else now_s / self.apart
        if best_s <= 0:
            return replace(self, since=work)
        ratios = (*self.ratios, now_s / best_s / sharers)[-ROUNDS:]
        slowed = _decided(ratios, self.slowed)
        apart = self.apart if slowed == self.slowed else slowed * sharers if slowed > 1 else 1.0
        return Pace(epoch, work, best_s, ratios, slowed, apart)

    def measured(self, slowed: float) -> Pace:
        """After a measurement while nobody talked: it counts, and what comes next is compared with itself."""
        return Pace(self.epoch, self.since, slowed=slowed, apart=slowed)


def _decided(ratios: tuple[float, ...], before: float) -> float:
    if len(ratios) < ROUNDS:
        return before
    level = median(ratios)
    if min(ratios) > SLOWER:
        steady = before > 1 and max(level / before, before / level) < CHANGED
        return before if steady else level
    return 1.0 if max(ratios) <= SLOWER else before
