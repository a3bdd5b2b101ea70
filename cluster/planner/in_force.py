"""The Choice of a Plan in force: what a search for a better one starts from, so that more hardware never makes it worse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cluster.planner.budget import Load
from cluster.planner.choice import Choice, Kind, StageChoice
from swarm.plan import Model, Plan, Stage


def choice_in_force(plan: Plan | None, model: Model, load: Load) -> Choice | None:
    """What a Plan decides, without copies of experts; None where it is of another model or does not do what is asked now."""
    if plan is None or (plan.model.model_id, plan.model.dtype) != (model.model_id, model.dtype):
        return None
    if len(plan.routes) > load.sessions or plan.model.config != model.config:
        return None
    routes = tuple(tuple(_stage(plan, s, r, load.standby) for s in route.stages) for r, route in enumerate(plan.routes))
    kinds = [kind for route in routes for stage in route for kind, _ in stage.kinds]
    if load.standby and (len(routes) > 1 or not all(kind.standby for kind in kinds)):
        return None
    return Choice(routes, plan.in_flight or 1, 0.0)


def _stage(plan: Plan, stage: Stage, route: int, standby: bool) -> StageChoice:
    kinds = Counter(Kind(tuple(sorted(_away(plan, b, route))), _copy(plan, b) if standby else "") for b in stage.blocks)
    return StageChoice(stage.worker, tuple(sorted(kinds.items(), key=lambda item: (item[0].away, item[0].standby))))


def _away(plan: Plan, block: int, route: int) -> Iterator[tuple[str, int]]:
    for shard in plan.shards:
        if (shard.block, shard.route, shard.copy) == (block, route, False):
            yield shard.worker, len(shard.experts)


def _copy(plan: Plan, block: int) -> str:
    return next((s.worker for s in plan.standbys if block in s.blocks), "")
