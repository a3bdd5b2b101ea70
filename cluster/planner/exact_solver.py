"""The solver of one set of owners' program: its relaxation's prices, and its exact optimum.

HiGHS branches far better on how many Blocks an owner has than on every kind alone: those sums are variables of their own.
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
from cluster.planner.exact_program import Program, Solved

LIMIT, INFEASIBLE, FAILED = 1, 2, 4
"""The solver's status where it stopped at its limit of nodes, where there is no solution, and where it broke off with an error."""
NODES = 20_000
"""Of one integer program, at most."""


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


def solve(program: Program, ends: Ends, kept: Ints, cutoff: float) -> tuple[Solved | None, bool]:
    """The optimum with these ends of the variables `kept`, and whether the solver came to an end.

    None where none is better than `cutoff` seconds, or none was found in the nodes that it has.
    """
    found = _milp(program, ends, kept, (cutoff - program.weights.alone * ends.alone) * program.scale)
    if found.x is None:
        return None, found.status not in (LIMIT, FAILED)
    full = np.zeros(program.columns)
    full[kept] = found.x[: len(kept)]
    return program.checked(ends, full), found.status not in (LIMIT, FAILED)


def _milp(program: Program, ends: Ends, kept: Ints, most: float) -> OptimizeResult:
    """As scipy says it, of at most so much beside what the ends take. The Blocks of an owner are a variable of their own."""
    owner, of_blocks = kept // program.alone_s.shape[1], kept < program.alone_s.size
    sums = np.array([(owner == o) & of_blocks for o in np.unique(owner[of_blocks])], float).reshape(-1, len(kept))
    (equal, equals), count = program.equal, len(sums)
    cost = np.append(program.cost[kept], np.zeros(count))
    limits = [
        LinearConstraint(_wide(program.rows[:, kept], np.zeros((len(program.rows), count))), -np.inf, program.right(ends)),
        LinearConstraint(_wide(equal[:, kept], np.zeros((len(equal), count))), equals, equals),
        LinearConstraint(_wide(sums, -np.eye(count)), 0, 0),
    ]
    if np.isfinite(most):
        limits.append(LinearConstraint(cost[None, :], -np.inf, most))
    whole = np.append(
        (kept != program.alone_s.size).astype(np.int64), np.ones(count, np.int64)
    )  # the time of all Sessions is never whole
    bounds = Bounds(0, np.append(program.upper[kept], np.full(count, program.ground.prices.num_blocks)))
    for presolve in (True, False):  # HiGHS gives a few programs up with an error, and solves them without presolve
        found = milp(
            cost,
            constraints=limits,
            integrality=whole,
            bounds=bounds,
            options={"mip_rel_gap": 0.0, "node_limit": NODES, "presolve": presolve},
        )
        if found.status != FAILED or "limit" in found.message:  # scipy calls a limit of nodes an error
            break
    return found


def _wide(*parts: Floats) -> csr_matrix:
    return csr_matrix(np.hstack(parts))
