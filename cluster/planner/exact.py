"""The best single Route of a home's swarm, with a bound: which Devices have Stages, in which order, with which Blocks and experts.

Every set of owners with every number of micro-batches under way gets a bound; those that could be best are solved, the most
promising first, until no bound is below the best that was found. Of whole Blocks that is the optimum. With ExpertShards it is
for up to `SHORT` Blocks and `KINDS` kinds; of longer models it is within `NEAR` of the optimum, or after `EFFORT` within what
`Best.least` says: see `exact_split`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cluster.planner.exact_best import Best
from cluster.planner.exact_few import FewBlocks
from cluster.planner.exact_fill import Weights
from cluster.planner.exact_ground import Ground
from cluster.planner.exact_paths import Counts
from cluster.planner.exact_program import CLOSE
from cluster.planner.exact_sets import Sets
from cluster.planner.exact_split import NEAR, Effort, SplitSearch
from cluster.planner.exact_times import Times
from cluster.planner.exact_whole import WholeBlocks

SHORT, KINDS = 6, 400
"""Blocks of a model, and kinds of a Block, up to which Plans with ExpertShards are exact too."""
EFFORT = Effort(columns=240_000, variables=3_000, nodes=30)
"""For more Blocks: counted, not timed, so that every machine ends at the same Plan."""


@dataclass(frozen=True)
class RouteSearch:
    """For one Route's best on one ground.

    Args:
        times: by rows, shared between searches on grounds with the same Devices.
    """

    ground: Ground
    weights: Weights
    in_flights: tuple[int, ...]
    effort: Effort = EFFORT
    times: dict[float, Times] = field(default_factory=dict)

    @cached_property
    def sets(self) -> Sets:
        return Sets(self.ground, self.weights, self.in_flights, self.times)

    @cached_property
    def close(self) -> float:
        """How near to the optimum a Plan with ExpertShards is."""
        few = self.ground.prices.num_blocks <= SHORT and len(self.sets.kinds.places) <= KINDS
        return CLOSE if few else NEAR

    def best(self, cutoff: float = np.inf) -> Best:
        """Its `found` is None where nothing fits, or nothing is better than `cutoff` (of `Weights.of`)."""
        best = Best(cutoff, self.close)
        able = [c for c in self.sets.paths.owners if self.sets.could_fit(c)] if self.ground.devices else []
        if not able:
            return Best(np.inf, self.close)
        if not self.ground.load.standby:
            self._whole(able, best)
        if self.sets.kinds.places.shape[1] or self.ground.load.standby:
            self._split(able, best)
        return best

    def _whole(self, able: list[Counts], best: Best) -> None:
        whole = WholeBlocks(self.sets)
        for bound, counts, row in self.sets.bounded(able, self.sets.owner(able), split=False, away=False, most=best.most):
            if bound > best.most:
                break
            if self.ground.asked <= set(self.sets.devices_of(counts)):
                whole.look(counts, row, best)

    def _split(self, able: list[Counts], best: Best) -> None:
        away, owner = not self.ground.load.standby, self.sets.owner(able)
        bounds = self.sets.bounded(able, owner, split=True, away=away, most=best.below)
        if self.close > CLOSE:
            SplitSearch(self.sets, bounds, self.effort).run(best)
            return
        few = FewBlocks(self.sets)
        for bound, counts, row in bounds:
            if bound > best.below:
                break
            few.look(counts, row, best)

    def bounds(self) -> list[tuple[float, Counts, int]]:
        """As `Sets.bounded`, of every set."""
        able = [c for c in self.sets.paths.owners if self.sets.could_fit(c)]
        return self.sets.bounded(able, self.sets.owner(able), split=True, away=False) if able else []
