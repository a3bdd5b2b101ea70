"""The solver of one set of owners' program: its relaxation's prices, a good solution of few kinds, and what no solution can beat.

HiGHS branches far better on how many Blocks an owner has, and how many of them lack how many experts, than on every kind alone:
those sums are variables of their own.
P: pairs of a first and a last Stage   Y: variables of `Program`
Source: Huangfu, Hall: Parallelizing the dual revised simplex method, Math. Prog. Comp. 10(1), 2018 (HiGHS, through scipy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, linprog, milp
from scipy.sparse import csr_matrix

from cluster.planner.exact_ground import Ends, Floats, Ints
from cluster.planner.exact_program import CLOSE, Program, Solved

LIMIT, INFEASIBLE, FAILED = 1, 2, 4
"""The solver's status where it stopped at its limit of nodes, where there is no solution, and where it broke off with an error."""
NODES, FEW_NODES, PROOF_NODES = 20_000, 300, 60
"""Of one integer program, at most: where it is to be exact, where not, and for a bound."""
PROOF = 2e-3
"""How near to its optimum a bound is taken: a share of the seconds."""


@dataclass(frozen=True)
class Relaxed:
    """The linear program's bound for each pair of ends [P], what one more of each variable adds to it [Y], and its prices.

    Args:
        memory, busy: [N] seconds for room for one expert, and of the objective for a second that a Worker is kept.
        around, link, most: of the objective for a second of the way round, of the busiest link, of the most for all Sessions.
    """

    bounds: Floats
    reduced: Floats
    memory: Floats
    busy: Floats
    around: float
    link: float
    most: float


def relaxed(program: Program, ends: Sequence[Ends]) -> Relaxed | None:
    """Bounds for each pair of ends from one linear program; None where it has no solution for any."""
    rights = np.array([program.right(e) for e in ends])
    right, (equal, equals) = rights.max(axis=0), program.equal
    bounds = [(0.0, float(upper)) for upper in program.upper]
    found = linprog(program.cost, program.rows, right, equal, equals, bounds, method="highs")
    if found.status == INFEASIBLE:
        return None
    assert found.status == 0, f"the linear program ended with status {found.status}: {found.message}"
    prices = np.minimum(found.ineqlin.marginals, 0)
    reduced = program.cost - program.rows.T @ prices - equal.T @ found.eqlin.marginals
    fixed = program.weights.alone * np.array([e.alone for e in ends])
    size, after = len(program.ground.devices), 3 * len(program.ground.devices) + len(program.owners) + 2
    return Relaxed(
        bounds=fixed + (found.fun + (rights - right) @ prices) / program.scale,
        reduced=reduced / program.scale,
        memory=-prices[:size] / program.scale,
        busy=-prices[size : 2 * size],
        around=-float(prices[2 * size]),
        link=-float(prices[2 * size + 1]),
        most=-float(prices[after]),
    )


def solve(program: Program, ends: Ends, kept: Ints, cutoff: float, gap: float) -> tuple[Solved | None, bool]:
    """The best with these ends, to `gap` of it, of the variables `kept`, and whether the solver came to an end.

    None where none is better than `cutoff` seconds, or none was found in the nodes that it has.
    """
    exact = gap <= CLOSE
    sums = _Sums.of(program, kept, np.ones(len(kept), np.int64), by_away=False)
    most = (cutoff - program.weights.alone * ends.alone) * program.scale
    found = sums.solved(program.right(ends), most, 0.0 if exact else gap, NODES if exact else FEW_NODES)
    ended = found.status not in (LIMIT, FAILED)
    if found.x is None:
        return None, ended
    full = np.zeros(program.columns)
    full[kept] = found.x[: len(kept)]
    return program.checked(ends, full), ended


def bound(program: Program, ends: Sequence[Ends], kept: Ints, by_away: bool) -> float:
    """Seconds that no solution of the variables `kept` betters, with any of these ends: only sums of variables are whole.

    Args:
        by_away: whole are the Blocks of each owner that lack so many experts; else the Blocks of each owner.
    """
    sums = _Sums.of(program, kept, np.zeros(len(kept), np.int64), by_away)
    right = np.array([program.right(e) for e in ends]).max(axis=0)
    found = sums.solved(right, np.inf, PROOF, PROOF_NODES)
    least = program.weights.alone * min(e.alone for e in ends)
    if found.status == INFEASIBLE:
        return float(np.inf)
    return least + found.mip_dual_bound / program.scale if found.mip_dual_bound is not None else 0.0


@dataclass(frozen=True)
class _Sums:
    """Some variables of a program, and sums of them that must be whole.

    Args:
        whole: [V] 1 where a variable must be whole.
        groups: [S, V] which variables each sum is of.
    """

    program: Program
    kept: Ints
    whole: Ints
    groups: Floats

    @classmethod
    def of(cls, program: Program, kept: Ints, whole: Ints, by_away: bool) -> _Sums:
        """The time of all Sessions is never whole."""
        kinds = program.alone_s.shape[1]
        of_blocks = kept < program.alone_s.size
        keys = [kept // kinds * (program.ground.prices.num_experts + 1)]
        if by_away:
            keys.append(keys[0] + program.many.kinds.away[kept % kinds] + program.alone_s.size)
        groups = [(key == k) & of_blocks for key in keys for k in np.unique(key[of_blocks])]
        return cls(program, kept, whole * (kept != program.alone_s.size), np.array(groups, float).reshape(-1, len(kept)))

    def solved(self, right: Floats, most: float, gap: float, nodes: int) -> OptimizeResult:
        """As scipy says it, of at most so much."""
        program, count = self.program, len(self.groups)
        equal, equals = program.equal
        cost = np.concatenate([program.cost[self.kept], np.zeros(count)])
        limits = [
            LinearConstraint(_wider(program.rows[:, self.kept], np.zeros((len(right), count))), -np.inf, right),
            LinearConstraint(_wider(equal[:, self.kept], np.zeros((len(equals), count))), equals, equals),
            LinearConstraint(_wider(self.groups, -np.eye(count)), 0, 0),
        ]
        if np.isfinite(most):
            limits.append(LinearConstraint(cost[None, :], -np.inf, most))
        whole = np.concatenate([self.whole, np.ones(count, np.int64)])
        bounds = Bounds(0, np.concatenate([program.upper[self.kept], np.full(count, program.ground.prices.num_blocks)]))
        for presolve in (True, False):  # HiGHS gives a few programs up with an error, and solves them without presolve
            found = milp(
                cost,
                constraints=limits,
                integrality=whole,
                bounds=bounds,
                options={"mip_rel_gap": gap, "node_limit": nodes, "presolve": presolve},
            )
            if found.status != FAILED:
                break
        return found


def _wider(variables: Floats, sums: Floats) -> csr_matrix:
    return csr_matrix(np.hstack([variables, sums]))
