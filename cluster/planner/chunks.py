"""How prompts are best cut, from what was measured: see `swarm.plan.Plan.start_rows`, which the entry Stage cuts by."""

from __future__ import annotations

from cluster.planner.costs import Costs
from cluster.planner.predict import Round, going_round
from swarm.plan import CHUNK_ROWS, Plan

FEW = CHUNK_ROWS // 4
MOST = 4096


def start_rows(plan: Plan, costs: Costs) -> int:
    """Rows of a prompt that take the slowest Worker or link of a Route as long as a chunk takes it however few its rows are.

    A chunk of c rows takes it a + b c seconds; from two sizes of chunk: a / b. Of several Routes, the largest.
    """
    return max(_of_route(plan, number, costs) for number in range(len(plan.routes)))


def _of_route(plan: Plan, route: int, costs: Costs) -> int:
    few, many = (_slowest_s(going_round(plan, route, costs, rows, False, prompt=True)) for rows in (FEW, CHUNK_ROWS))
    row_s = max(0.0, many - few) / (CHUNK_ROWS - FEW)
    start_s = max(0.0, few - FEW * row_s)
    return min(MOST, max(1, round(start_s / row_s))) if row_s else MOST


def _slowest_s(round_: Round) -> float:
    return round_.busy_s[round_.slowest]
