"""The best Route so far of a search, and what no Route that it passed over can be better than."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.planner.exact_program import CLOSE, Program, Solved

LONGER = 1e-12
"""Relative difference of seconds that rounding explains."""


@dataclass(frozen=True)
class Found:
    """The best of one Route: `value` is what was minimised, the rest what it consists of."""

    value: float
    owners: tuple[int, ...]
    """Devices with Stages, in their order."""
    program: Program
    solved: Solved

    @property
    def rank(self) -> tuple[int, int, tuple[int, ...]]:
        """Of equals the first: fewer Devices, fewer experts away, lower names."""
        held = np.einsum("odk,ok->d", self.program.held, self.solved.blocks)
        used = len(self.owners) + int(np.count_nonzero(held[[d for d in range(len(held)) if d not in self.owners]]))
        return used, round(float(held.sum())), self.owners


class Best:
    """The best so far.

    Args:
        cutoff: what it must be better than.
        close: share of the seconds by which a program with experts elsewhere must better the best so far.
    """

    def __init__(self, cutoff: float, close: float) -> None:
        self.most, self._close = cutoff, close
        self._passed = np.inf
        self.found: Found | None = None

    @property
    def below(self) -> float:
        """What is better costs no more."""
        return self.most * (1 - self._close) if self.found else self.most

    @property
    def least(self) -> float:
        """No Route takes less: of those that could have been better than the cutoff."""
        return min(self.found.value if self.found and self._close <= CLOSE else self.below, self._passed)

    @property
    def exact(self) -> bool:
        """Whether no Route is better, and `least` says no more than that."""
        return self._close <= CLOSE and self._passed == np.inf

    def pass_over(self, bound: float) -> None:
        """What costs at least so much is not looked at, or not to the end."""
        self._passed = min(self._passed, bound)

    def offer(self, found: Found) -> None:
        if self.found and found.value > self.found.value * (1 + LONGER):
            return
        if self.found and found.value > self.found.value * (1 - LONGER) and found.rank >= self.found.rank:
            return
        if found.value <= self.most:
            self.found, self.most = found, found.value * (1 + LONGER)
