"""Experts elsewhere, or standby copies, for a model of many Blocks: the most promising owners first.

Always the owners with the lowest bound are looked at further: a linear program, whose prices bound all others too (`exact_floor`);
a nearer one (`exact_near`); an integer program over the likeliest kinds of Blocks, for a Plan; linear programs that branch over
numbers of Blocks (`exact_branch`); an integer program over all kinds, numbers and orders that a better Plan may have. What that
ends for is optimal to `NEAR`; what is not ended is passed over with its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cluster.planner.exact_best import Best
from cluster.planner.exact_branch import Branches
from cluster.planner.exact_floor import Floor
from cluster.planner.exact_ground import Ends, Flags, Ints
from cluster.planner.exact_near import Near, solve
from cluster.planner.exact_paths import Counts
from cluster.planner.exact_program import Program
from cluster.planner.exact_rooms import Rooms
from cluster.planner.exact_sets import Sets
from cluster.planner.exact_solver import Relaxed, relaxed

NEAR = 1e-3
"""Plans that differ by less than this share of the seconds are equal."""
GAP, ROUGH = 2e-4, 1e-3
"""Relative difference from its optimum that ends an integer program: for the last one of some owners, and before."""
FEW, FEW_WAYS, FEW_NODES = 250, 10, 10
"""Kinds of Blocks, first and last Stages, and nodes of the first integer program of some owners."""
PART = 8_000
"""Columns of linear programs that branch, before other owners have their turn."""
MANY = 2200
"""Variables up to which an integer program is solved where branching did not do; of no more than are left of `Effort`."""
IN_A_ROW = 8
"""Linear programs after which the most promising owners are tried, though others may be more promising still."""


@dataclass(frozen=True)
class Effort:
    """What is done at most.

    Args:
        columns: of all linear programs together.
        variables: of all integer programs together.
        nodes: of one integer program.
    """

    columns: int
    variables: int
    nodes: int


@dataclass
class _Owners:
    """One set of owners with a number of micro-batches under way, once it is looked at."""

    counts: Counts
    row: int
    program: Program
    every: list[tuple[int, int, Ends]]
    prices: Relaxed
    near: Near | None = None
    tried: bool = False
    branches: Branches | None = None


@dataclass
class SplitSearch:
    """One search.

    Args:
        bounds: (bound, owners, place in `in_flights`).
    """

    sets: Sets
    bounds: Sequence[tuple[float, Counts, int]]
    effort: Effort
    known: dict[int, _Owners] = field(default_factory=dict)
    floors: dict[int, tuple[Ints, Floor]] = field(default_factory=dict)

    def run(self, best: Best) -> None:
        """Offer what is found, and pass over what is not looked at to its end."""
        self.least = np.array([b for b, _, _ in self.bounds])
        self.ended = np.zeros(len(self.bounds), np.bool_)
        self.columns, self.variables, self.priced = self.effort.columns, self.effort.variables, 0
        while (at := self._next(best)) is not None:
            if at not in self.known:
                self._price(at)
            else:
                self._look(at, self.known[at], best)
        least = float(self.least.min(initial=np.inf))
        if np.isfinite(least) and least <= best.below:
            best.pass_over(least)

    def _next(self, best: Best) -> int | None:
        """The owners to look at further; None where no others may be better, or enough was done."""
        # Whether copies find room at all is not known beforehand, as it is without them: that search, too, must end.
        searching = self._searching(best) and not self.sets.ground.load.standby
        known = np.array([i in self.known for i in range(len(self.least))], np.bool_)
        of = ~self.ended & np.isfinite(self.least) & (self.least <= best.below)
        if self.priced >= IN_A_ROW and (of & known).any():
            of &= known
        return self._lowest(of) if of.any() and (searching or min(self.columns, self.variables) > 0) else None

    def _searching(self, best: Best) -> bool:
        return best.found is None and not np.isfinite(best.most)

    def _lowest(self, of: Flags) -> int:
        return int(np.where(of, self.least, np.inf).argmin())

    def _price(self, at: int) -> None:
        """Price the owners by a linear program, and all others by its prices."""
        _, counts, row = self.bounds[at]
        program, every = self.sets.program(counts, row), self.sets.ends(counts, row)
        self.columns -= program.columns
        self.priced += 1
        prices = relaxed(program, [e for _, _, e in every]) if every else None
        if prices is None:
            self.least[at], self.ended[at] = np.inf, True
            return
        self.known[at] = _Owners(counts, row, program, every, prices)
        self.least[at] = max(self.least[at], prices.bounds.min())
        alike, floor = self._floor(row)
        self.least[alike] = np.maximum(self.least[alike], floor.seconds(prices))

    def _floor(self, row: int) -> tuple[Ints, Floor]:
        if row not in self.floors:
            alike = np.array([i for i, b in enumerate(self.bounds) if b[2] == row])
            counts = [self.bounds[i][1] for i in alike]
            self.floors[row] = alike, Floor(self.sets, counts, self.sets.owner(counts), row)
        return self.floors[row]

    def _look(self, at: int, owners: _Owners, best: Best) -> None:
        """One step further with owners that have prices."""
        if owners.near is None:
            rooms = self._rooms(owners, best)
            self.columns -= rooms.size
            owners.near = Near.of(rooms)
            self.least[at] = max(self.least[at], owners.near.least)
            return
        near, self.priced = owners.near, 0
        if not owners.tried:
            owners.tried = True
            few = near.likely(best.below, FEW, FEW_WAYS)
            self._solve(owners, few, best.below, best, ROUGH, min(FEW_NODES, self.effort.nodes))
            return
        if owners.branches is None:
            near = near if self._searching(best) else self._nearer(at, near, best)
            owners.branches = Branches(near, best, lambda rooms: self._offered(owners, rooms, np.inf, best, GAP, self.effort.nodes))
        if not self._searching(best):
            self._branch(at, owners.branches)
        rooms = owners.branches.start.better(best.below)
        if self.least[at] <= best.below and (self._searching(best) or rooms.size <= min(MANY, self.variables)):
            self.least[at] = max(self.least[at], self._solve(owners, rooms, np.inf, best, GAP, self.effort.nodes))
            self.ended[at] = True

    def _branch(self, at: int, branches: Branches) -> None:
        before = branches.columns
        branches.go_on(PART)
        self.columns -= branches.columns - before
        self.least[at] = max(self.least[at], branches.least)
        self.ended[at] = branches.columns == before

    def _nearer(self, at: int, near: Near, best: Best) -> Near:
        """With fewer numbers of Blocks, where that is a small effort."""
        rooms = near.better(best.below)
        if rooms.size > MANY:
            return near
        self.columns -= rooms.size * 2 * len(rooms.program.owners)
        near = near.nearer(best.below)
        self.least[at] = max(self.least[at], near.least)
        return near

    def _rooms(self, owners: _Owners, best: Best) -> Rooms:
        """Of the variables and ends that a better Plan may have, by the linear program."""
        prices, program = owners.prices, owners.program
        kept = np.flatnonzero(prices.reduced <= best.below - prices.bounds.min())
        kept = np.union1d(kept, np.arange(program.alone_s.size, program.columns))
        ways = [e for (_, _, e), b in zip(owners.every, prices.bounds, strict=True) if b <= best.below]
        return Rooms.of(program, ways, kept)

    def _solve(self, owners: _Owners, rooms: Rooms, most: float, best: Best, gap: float, nodes: int) -> float:
        """As `_offered`, and counted."""
        self.variables -= rooms.size
        return self._offered(owners, rooms, most, best, gap, nodes)

    def _offered(self, owners: _Owners, rooms: Rooms, most: float, best: Best, gap: float, nodes: int) -> float:
        """Offer what an integer program finds, over all orders between those ends; seconds that nothing of it betters."""
        ends = {id(e): (f, l, e) for f, l, e in owners.every}
        orders = [o for way in rooms.ways for o in self.sets.real(owners.counts, owners.row, *ends[id(way)])]
        tried = solve(replace(rooms, ways=[real for _, real in orders]), most, gap, nodes)
        if tried.solved:
            path, real = orders[tried.way]
            alone, many = owners.program.seconds(real, tried.solved.blocks)
            best.offer(self.sets.found(owners.program, path, real, replace(tried.solved, alone=alone, many=many)))
        return tried.least
