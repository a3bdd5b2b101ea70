"""Experts elsewhere, or standby copies, for a model of many Blocks: the most promising owners first, as long as it pays.

Linear programs bound the owners, and the prices of each bound all others (`exact_floor`). An integer program over the likeliest
kinds of Blocks gives a Plan. Where the best found is not near enough to the lowest bound, that is proven further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cluster.planner.exact_best import Best
from cluster.planner.exact_floor import Floor
from cluster.planner.exact_ground import Ends, Flags, Ints
from cluster.planner.exact_paths import Counts
from cluster.planner.exact_program import Program
from cluster.planner.exact_sets import Sets
from cluster.planner.exact_solver import Relaxed, bound, near, relaxed

LIKELY = 12
"""Kinds of Blocks of each owner that an integer program is about."""
IN_A_ROW = 8
"""Linear programs after which the most promising owners are tried, though others may be more promising still."""
ENDS = 10
"""First and last Stages that it may choose from."""
GAP = 5e-3
"""Relative difference from its optimum that ends an integer program."""
BY_AWAY, BY_OWNER = 800, 2000
"""Variables of a program up to which a bound is of whole numbers of Blocks that lack so many experts, or of whole Stages."""


@dataclass(frozen=True)
class Effort:
    """What is done at most.

    Args:
        columns: of all linear programs together.
        programs, proofs: integer programs for Plans, and for bounds.
    """

    columns: int
    programs: int
    proofs: int


@dataclass
class _Owners:
    """One set of owners, once it is looked at."""

    program: Program
    every: list[tuple[int, int, Ends]]
    prices: Relaxed


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
        self.tried = np.zeros(len(self.bounds), np.bool_)
        self.columns = self.effort.columns
        self._find(best)
        self._prove(best)
        if self._open(best):
            best.pass_over(float(self.least.min()))

    def _open(self, best: Best) -> bool:
        """Whether some owners may have something better."""
        least = self.least.min(initial=np.inf)
        return bool(np.isfinite(least) and least <= best.below)

    def _find(self, best: Best) -> None:
        programs, priced = self.effort.programs, 0
        while (programs > 0 or not best.found) and not self.tried.all():
            at = self._lowest(~self.tried)
            if self.least[at] > best.below:
                return
            if at not in self.known and priced < IN_A_ROW and self._has_time(best):
                self._price(at)
                priced += 1
                continue
            known = np.array([i in self.known for i in range(len(self.tried))]) & ~self.tried
            if not known.any():
                return
            at, priced, programs = self._lowest(known), 0, programs - 1
            self.tried[at] = True
            if self.least[at] <= best.below:
                self._solve(at, best)

    def _lowest(self, of: Flags) -> int:
        return int(np.where(of, self.least, np.inf).argmin())

    def _has_time(self, best: Best) -> bool:
        return self.columns > 0 or (best.found is None and not np.isfinite(best.most))

    def _prove(self, best: Best) -> None:
        """Raise the lowest bound while that is possible."""
        proven: set[int] = set()
        while self._open(best) and len(proven) < self.effort.proofs:
            at = int(self.least.argmin())
            if at not in self.known:
                if self.columns <= 0:
                    return
                self._price(at)
            elif at in proven:
                return
            else:
                proven.add(at)
                self._prove_one(at, best)

    def _price(self, at: int) -> None:
        """Price the owners by a linear program, and all others by its prices."""
        _, counts, row = self.bounds[at]
        program, every = self.sets.program(counts, row), self.sets.ends(counts, row)
        self.columns -= program.columns
        prices = relaxed(program, [e for _, _, e in every]) if every else None
        if prices is None:
            self.least[at], self.tried[at] = np.inf, True
            return
        self.known[at] = _Owners(program, every, prices)
        self.least[at] = max(self.least[at], prices.bounds.min())
        alike, floor = self._floor(row)
        self.least[alike] = np.maximum(self.least[alike], floor.seconds(prices))

    def _floor(self, row: int) -> tuple[Ints, Floor]:
        if row not in self.floors:
            alike = np.array([i for i, b in enumerate(self.bounds) if b[2] == row])
            counts = [self.bounds[i][1] for i in alike]
            self.floors[row] = alike, Floor(self.sets, counts, self.sets.owner(counts), row)
        return self.floors[row]

    def _solve(self, at: int, best: Best) -> None:
        """One integer program, of the likeliest ends and kinds."""
        owners, (_, counts, row) = self.known[at], self.bounds[at]
        program, prices = owners.program, owners.prices
        every = [owners.every[x] for x in np.argsort(prices.bounds, kind="stable")[:ENDS]]
        solved, pair = near(program, [e for _, _, e in every], self._likely(program, prices), GAP)
        if solved is None:  # memory does not depend on how many micro-batches are under way
            self.tried |= np.array([c == counts for _, c, _ in self.bounds])
            return
        for path, real in self.sets.real(counts, row, *every[pair]):
            alone, many = program.seconds(real, solved.blocks)
            found = replace(solved, alone=alone, many=many)
            best.offer(self.sets.found(program, path, real, found))

    def _likely(self, program: Program, prices: Relaxed) -> Ints:
        blocks, kinds = program.alone_s.size, program.alone_s.shape[1]
        reduced = prices.reduced[:blocks].reshape(-1, kinds)
        likely = np.argsort(reduced, axis=1, kind="stable")[:, :LIKELY] + kinds * np.arange(len(reduced))[:, None]
        every = np.union1d(likely.ravel(), kinds * np.arange(len(reduced)))
        return np.append(every, np.arange(blocks, len(prices.reduced)))

    def _prove_one(self, at: int, best: Best) -> None:
        owners = self.known[at]
        program, prices, lowest = owners.program, owners.prices, owners.prices.bounds.min()
        kept = np.flatnonzero(prices.reduced <= best.below - lowest)
        kept = np.union1d(kept, np.arange(program.alone_s.size, len(prices.reduced)))
        ends = [e for (_, _, e), b in zip(owners.every, prices.bounds, strict=True) if b <= best.below]
        if len(kept) <= BY_OWNER:
            proven = min(bound(program, ends, kept, len(kept) <= BY_AWAY), best.below * (1 + 1e-9))
            self.least[at] = max(self.least[at], proven)
