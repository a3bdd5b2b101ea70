"""The best Route of whole Blocks over one set of owners: how many Blocks each of them has, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.planner.exact_best import LONGER, Best
from cluster.planner.exact_fill import Filled, fill
from cluster.planner.exact_ground import Ends
from cluster.planner.exact_paths import Counts
from cluster.planner.exact_program import Solved
from cluster.planner.exact_sets import Sets
from cluster.planner.exact_solver import solve


@dataclass(frozen=True)
class WholeBlocks:
    """Nobody holds experts of another's Block."""

    sets: Sets

    def look(self, counts: Counts, row: int, best: Best) -> None:
        """Offer the best of these owners, where it is better than the best so far."""
        program, every = self.sets.program(counts, row), self.sets.ends(counts, row)
        owners = list(program.owners)
        if not every:
            return
        filled = self._filled(counts, row, [e for _, _, e in every])
        for x in np.argsort(filled.seconds, kind="stable"):
            if filled.seconds[x] > best.most or not np.isfinite(filled.seconds[x]):
                return
            f, l, ends = every[x]
            for path, real in self.sets.real(counts, row, f, l, ends):
                again = self._filled(counts, row, [real])
                if again.seconds[0] > best.most or not np.isfinite(again.seconds[0]):
                    continue
                blocks = np.zeros((len(owners), self.sets.kinds.places.shape[0]), np.int64)
                blocks[:, 0] = again.blocks[0, owners]
                alone, many = program.seconds(real, blocks)
                value = self.sets.weights.of(alone, many)
                solved: Solved | None = Solved(blocks, np.zeros((0, 0), np.int64), alone, many)
                if value > again.seconds[0] * (1 + LONGER):
                    kept = np.append(np.arange(len(owners)) * self.sets.kinds.places.shape[0], program.alone_s.size)
                    solved, _ = solve(program, real, kept, best.most)
                if solved:
                    best.offer(self.sets.found(program, path, real, solved))

    def _filled(self, counts: Counts, row: int, every: Sequence[Ends]) -> Filled:
        number, owner = self.sets.in_flights[row], np.repeat(self.sets.owner([counts]), len(every), axis=0)
        fixed = np.array([[e.alone, e.around] for e in every])
        stages = self.sets.stages(owner, number, fixed, np.array([e.link for e in every]), split=False)
        most = np.maximum(np.array([e.room for e in every]), 0) // self.sets.ground.prices.whole
        stages = replace(stages, most=most, plenty=most.astype(float), ends=np.array([e.busy for e in every]))
        return fill(stages, self.sets.ground.prices.num_blocks, number, self.sets.weights)
