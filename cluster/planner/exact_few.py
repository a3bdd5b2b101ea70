"""Experts elsewhere, for a model of few Blocks: exact, over all kinds of Blocks that a better Plan may have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.planner.exact_best import Best
from cluster.planner.exact_ground import Ends, Ints
from cluster.planner.exact_paths import Counts
from cluster.planner.exact_program import Program
from cluster.planner.exact_sets import Sets
from cluster.planner.exact_solver import Relaxed, relaxed, solve

FEW = 24
"""Kinds of Blocks that are tried before all that could be better are."""


@dataclass(frozen=True)
class FewBlocks:
    """Every program that could be better is solved to its end."""

    sets: Sets

    def look(self, counts: Counts, row: int, best: Best) -> None:
        """Offer the best of these owners, where it is better than the best so far."""
        program, every = self.sets.program(counts, row), self.sets.ends(counts, row)
        prices = relaxed(program, [e for _, _, e in every]) if every else None
        if prices is None:
            return
        for x in np.argsort(prices.bounds, kind="stable"):
            for most in (FEW, len(prices.reduced)):
                kept = self._kept(program, prices, int(x), best, most)
                if kept is None:
                    break
                if not self._tried(program, counts, row, every[x], kept, best):
                    best.pass_over(float(prices.bounds[x]))
                if len(kept) < most:
                    break

    def _kept(self, program: Program, prices: Relaxed, x: int, best: Best, most: int) -> Ints | None:
        """The variables, at most so many and the likeliest first, that a better Plan may have; None where there is none."""
        slack = best.below - prices.bounds[x]
        if slack < 0:
            return None
        blocks = program.alone_s.size
        likely = np.argsort(prices.reduced[:blocks], kind="stable")[:most]
        likely = np.sort(likely[prices.reduced[likely] <= slack])
        if not (program.rig_sets or self.sets.ground.asked or (likely % self.sets.kinds.places.shape[0]).any()):
            return None
        return np.append(likely, np.arange(blocks, len(prices.reduced)))

    def _tried(self, program: Program, counts: Counts, row: int, at: tuple[int, int, Ends], kept: Ints, best: Best) -> bool:
        """Whether the solver came to an end."""
        f, l, ends = at
        solved, ended = solve(program, ends, kept, best.below)
        if solved is None:
            return ended
        for path, real in self.sets.real(counts, row, f, l, ends):
            found = solved
            if (real.alone, real.around, real.link) != (ends.alone, ends.around, ends.link):
                again, also = solve(program, real, kept, best.below)
                ended = ended and also
                if again is None:
                    continue
                found = again
            best.offer(self.sets.found(program, path, real, found))
        return ended
