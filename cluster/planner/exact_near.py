"""Linear and integer programs of `Rooms`: what no Plan of some owners can beat, what a better one may have, and the best.

V, Z, P: variables, numbers of Blocks, ways, as in `Rooms`   O: owners
Source: Huangfu, Hall: Parallelizing the dual revised simplex method, Math. Prog. Comp. 10(1), 2018 (HiGHS, through scipy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, linprog, milp
from scipy.sparse import csr_matrix

from cluster.planner.exact_ground import Floats
from cluster.planner.exact_program import Solved
from cluster.planner.exact_rooms import Rooms
from cluster.planner.exact_solver import FAILED, INFEASIBLE

ABOUT = 2
"""Blocks that an owner may have more or fewer than in the linear program's optimum, in a first attempt."""
ROUNDED = 1e-6
"""Of a Block, so that rounding takes none away."""
METHODS: Sequence[tuple[Literal["highs", "highs-ipm"], bool]] = (("highs", True), ("highs", False), ("highs-ipm", True))
"""And whether with presolve: HiGHS gives a few linear programs up with an error by one of them, and solves them by the next."""


@dataclass(frozen=True)
class Tried:
    """What an integer program came to.

    Args:
        solved, way: the best that was found, and with which of the ways; None where nothing was.
        least: seconds that no solution of those asked for betters; infinite where there is none.
    """

    solved: Solved | None
    way: int
    least: float


@dataclass(frozen=True)
class Near:
    """What a linear program came to.

    Args:
        least: seconds that no solution betters; infinite where there is none.
        reduced: [V + Z + P] what one more of each variable adds to them.
        blocks: [O] how many each owner has.
        values: [V + Z + P] the solution.
    """

    rooms: Rooms
    least: float
    reduced: Floats
    blocks: Floats
    values: Floats

    @classmethod
    def of(cls, rooms: Rooms) -> Near:
        found = None if rooms.none else _linprog(rooms, rooms.cost)
        if found is None:
            return cls(rooms, np.inf, np.zeros(rooms.size), np.zeros(len(rooms.program.owners)), np.zeros(rooms.size))
        upper, _, equal, _ = rooms.limits
        reduced = rooms.cost - upper.T @ np.minimum(found.ineqlin.marginals, 0) - equal.T @ found.eqlin.marginals
        scale, blocks = rooms.program.scale, rooms.shares[0] @ found.x[: len(rooms.kept)]
        return cls(rooms, rooms.soonest + found.fun / scale, np.maximum(reduced, 0) / scale, blocks, found.x)

    def better(self, most: float) -> Rooms:
        """What a solution of at most so many seconds may have."""
        return self.rooms.fewer(self.reduced, most - self.least)

    def nearer(self, most: float) -> Near:
        """The linear program of what such a solution may have, with the fewest and the most Blocks of each owner."""
        return Near.of(_within(self.better(most), most))

    def likely(self, most: float, kinds: int, ways: int) -> Rooms:
        """Of what such a solution may have: so many kinds of Blocks and ways, and numbers about those that were found."""
        found = self.rooms.fewer(self.reduced, most - self.least, kinds, ways)
        about = np.abs(found.numbers[:, 2] - self.blocks[found.numbers[:, 0]]) <= ABOUT
        return replace(found, numbers=found.numbers[about])


def solve(rooms: Rooms, most: float, gap: float, nodes: int, whole: bool = True) -> Tried:
    """The best that takes at most so many seconds, to `gap` of it, in at most so many nodes.

    Args:
        whole: kinds of Blocks are counted in whole numbers; else only how many Blocks each owner has, which gives a bound.
    """
    found = None if rooms.none else _milp(rooms, most, gap, nodes, whole)
    if found is None:
        return Tried(None, 0, np.inf)
    program = rooms.program
    least = -np.inf if found.mip_dual_bound is None else rooms.soonest + found.mip_dual_bound / program.scale
    if found.x is None or not whole:
        return Tried(None, 0, least)
    full, way = np.zeros(program.columns), int(found.x[rooms.size - len(rooms.ways) :].argmax())
    full[rooms.kept] = found.x[: len(rooms.kept)] * rooms.units
    return Tried(program.checked(rooms.ways[way], full), way, least)


def _within(rooms: Rooms, most: float) -> Rooms:
    """Only with numbers of Blocks between the fewest and the most that an owner has in any solution of at most so many seconds."""
    if rooms.none:
        return rooms
    stays, at, v = np.ones(len(rooms.numbers), np.bool_), rooms.numbers[:, 0], len(rooms.kept)
    for o in range(len(rooms.program.owners)):
        for sign in (1, -1):
            number = np.zeros(rooms.size)
            number[v : v + len(at)] = sign * rooms.shares[1][o]
            found = _linprog(rooms, number, most)
            if found is None:
                return replace(rooms, numbers=rooms.numbers[:0])
            stays &= (at != o) | (sign * rooms.numbers[:, 2] >= found.fun - ROUNDED)
    return replace(rooms, numbers=rooms.numbers[stays])


def _linprog(rooms: Rooms, cost: Floats, most: float = np.inf) -> OptimizeResult | None:
    """The least of `cost` in any solution of at most so many seconds; None where there is none."""
    left, right, equal, equals = rooms.limits
    if np.isfinite(most):
        left, right = np.vstack([left, rooms.cost]), np.append(right, (most - rooms.soonest) * rooms.program.scale)
    bounds = [(0.0, float(upper)) for upper in rooms.most]
    for method, presolve in METHODS:
        found = linprog(cost, left, right, equal, equals, bounds, method=method, options={"presolve": presolve})
        if found.status in (0, INFEASIBLE):
            break
    assert found.status in (0, INFEASIBLE), f"the linear program ended with status {found.status}: {found.message}"
    return None if found.status == INFEASIBLE else found


def _milp(rooms: Rooms, most: float, gap: float, nodes: int, whole: bool) -> OptimizeResult | None:
    """As scipy says it; None where there is no solution."""
    upper, right, equal, equals = rooms.limits
    limits = [LinearConstraint(csr_matrix(upper), -np.inf, right), LinearConstraint(csr_matrix(equal), equals, equals)]
    if np.isfinite(most):
        limits.append(LinearConstraint(rooms.cost[None, :], -np.inf, (most - rooms.soonest) * rooms.program.scale))
    others = rooms.size - len(rooms.kept)
    kinds = np.where(rooms.kept == rooms.program.alone_s.size, 0, int(whole))
    bounds = Bounds(0, np.append(rooms.most[: len(rooms.kept)], np.ones(others)))
    for presolve in (True, False):  # HiGHS gives a few programs up with an error, and solves them without presolve
        found = milp(
            rooms.cost,
            constraints=limits,
            integrality=np.append(kinds, np.ones(others, np.int64)),
            bounds=bounds,
            options={"mip_rel_gap": gap, "node_limit": nodes, "presolve": presolve},
        )
        if found.status != FAILED or "limit" in found.message:  # scipy calls a limit of nodes an error
            break
    return None if found.status == INFEASIBLE else found
