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
from cluster.planner.exact_program import Program, Solved

LIMIT, INFEASIBLE, FAILED = 1, 2, 4
"""The solver's status where it stopped at its limit of nodes, where there is no solution, and where it broke off with an error."""
NODES, FEW_NODES, PROOF_NODES = 20_000, 40, 10
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


def solve(program: Program, ends: Ends, kept: Ints, cutoff: float) -> tuple[Solved | None, bool]:
    """The optimum with these ends of the variables `kept`, and whether the solver came to an end.

    None where none is better than `cutoff` seconds, or none was found in the nodes that it has.
    """
    most = (cutoff - program.weights.alone * ends.alone) * program.scale
    sums = _Sums.of(program, kept, [ends], np.ones(len(kept), np.int64), by_away=False)
    found = sums.solved(most, 0.0, NODES)
    return sums.checked(found.x)[0], found.status not in (LIMIT, FAILED)


def near(program: Program, ends: Sequence[Ends], kept: Ints, gap: float) -> tuple[Solved | None, int]:
    """A solution that is about the best of the variables `kept` with any of these ends, to `gap` of it, and with which.

    None where none was found in the nodes that the solver has.
    """
    sums = _Sums.of(program, kept, ends, np.ones(len(kept), np.int64), by_away=False)
    return sums.checked(sums.solved(np.inf, gap, FEW_NODES).x)


def bound(program: Program, ends: Sequence[Ends], kept: Ints, by_away: bool) -> float:
    """Seconds that no solution of the variables `kept` betters, with any of these ends: only sums of variables are whole.

    Args:
        by_away: whole are the Blocks of each owner that lack so many experts; else the Blocks of each owner.
    """
    found = _Sums.of(program, kept, ends, np.zeros(len(kept), np.int64), by_away).solved(np.inf, PROOF, PROOF_NODES)
    least = program.weights.alone * min(e.alone for e in ends)
    if found.status == INFEASIBLE:
        return float(np.inf)
    return float(least + found.mip_dual_bound / program.scale) if found.mip_dual_bound is not None else 0.0


@dataclass(frozen=True)
class _Sums:
    """Some variables of a program, sums of them that must be whole, and the choice of one of several ends.

    Args:
        whole: [V] 1 where a variable must be whole.
        groups: [S, V] which variables each sum is of.
    """

    program: Program
    kept: Ints
    ends: Sequence[Ends]
    whole: Ints
    groups: Floats

    @classmethod
    def of(cls, program: Program, kept: Ints, ends: Sequence[Ends], whole: Ints, by_away: bool) -> _Sums:
        """The time of all Sessions is never whole."""
        kinds = program.alone_s.shape[1]
        of_blocks = kept < program.alone_s.size
        keys = [kept // kinds * (program.ground.prices.num_experts + 1)]
        if by_away:
            keys.append(keys[0] + program.many.kinds.away[kept % kinds] + program.alone_s.size)
        groups = [(key == k) & of_blocks for key in keys for k in np.unique(key[of_blocks])]
        return cls(program, kept, ends, whole * (kept != program.alone_s.size), np.array(groups, float).reshape(-1, len(kept)))

    def solved(self, most: float, gap: float, nodes: int) -> OptimizeResult:
        """As scipy says it, of at most so much beside what the ends with the least take.

        Where it need not be exact, rows of seconds are about 1: what rounding to whole numbers adds is below the solver's
        tolerance, else it repairs its solution, and says so on standard output whatever it was told (HiGHS issue 2783).
        """
        program, count, pairs = self.program, len(self.groups), len(self.ends)
        rights, (equal, equals) = np.array([program.right(e) for e in self.ends]), program.equal
        alone = program.weights.alone * program.scale * np.array([e.alone for e in self.ends])
        cost = np.concatenate([program.cost[self.kept], np.zeros(count), alone - alone.min()])
        right, none = rights.max(axis=0), np.zeros((len(rights[0]), count))
        by, at = program.row_units if gap else np.ones(len(right)), self.kept == program.alone_s.size
        columns = np.where(at, 1 / by.min(), 1.0)
        cost[: len(columns)] *= columns
        rows = program.rows[:, self.kept]
        limits = [
            LinearConstraint(_wide(rows * by[:, None] * columns, none, (by * (right - rights)).T), -np.inf, by * right),
            LinearConstraint(_wide(equal[:, self.kept], np.zeros((len(equal), count + pairs))), equals, equals),
            LinearConstraint(_wide(self.groups, -np.eye(count), np.zeros((count, pairs))), 0, 0),
            LinearConstraint(np.arange(len(cost))[None, :] >= len(cost) - pairs, 1, 1),
        ]
        if np.isfinite(most):
            limits.append(LinearConstraint(cost[None, :], -np.inf, most))
        whole = np.concatenate([self.whole, np.ones(count + pairs, np.int64)])
        upper = [program.upper[self.kept], np.full(count, program.ground.prices.num_blocks), np.ones(pairs)]
        bounds = Bounds(0, np.concatenate(upper))
        for presolve in (True, False):  # HiGHS gives a few programs up with an error, and solves them without presolve
            found = milp(
                cost,
                constraints=limits,
                integrality=whole,
                bounds=bounds,
                options={"mip_rel_gap": gap, "node_limit": nodes, "presolve": presolve},
            )
            if found.status != FAILED or (found.mip_node_count or 0) >= nodes:  # scipy calls a limit of nodes an error
                break
        return found

    def checked(self, values: Floats | None) -> tuple[Solved | None, int]:
        """A solution of `solved`, and with which of the ends it is."""
        if values is None:
            return None, 0
        full, pair = np.zeros(self.program.columns), int(values[len(values) - len(self.ends) :].argmax())
        full[self.kept] = values[: len(self.kept)]
        return self.program.checked(self.ends[pair], full), pair


def _wide(*parts: Floats) -> csr_matrix:
    return csr_matrix(np.hstack(parts))
