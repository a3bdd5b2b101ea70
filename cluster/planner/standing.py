"""Standby copies that can take a Stage over: all of its Blocks where they can be served from, with the ends of the model.

That is on Workers without a Stage, or on the neighbours of that Stage, whose own Stages then grow by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cluster.planner.budget import budget_of
from swarm.errors import PlacementError
from swarm.plan import ExpertShard, Plan, Route, Stage, Standby


def taken_over(plan: Plan, lost: str) -> Plan | None:
    """A Plan without that Worker that serves with what the others hold already; None where its copies do not suffice.

    Copies that are not needed for it stay. Its epoch and prediction are the old ones.
    """
    stages: list[Stage] = []
    for stage in plan.routes[0].stages if len(plan.routes) == 1 else ():
        runs = covers(plan, stage) if stage.worker == lost else [Standby(stage.worker, stage.first, stage.end)]
        for run in runs or ():
            if stages and stages[-1].worker == run.worker:
                stages[-1] = replace(stages[-1], end=run.end)
            else:
                stages.append(Stage(run.worker, run.first, run.end))
    if sum(len(s.blocks) for s in stages) < plan.model.config.num_blocks or lost in {s.worker for s in stages}:
        return None
    left = replace(
        plan,
        workers=tuple(w for w in plan.workers if w.name != lost),
        routes=(Route(tuple(stages)),),
        shards=tuple(_shards(plan, lost)),
        standbys=tuple(_still_standing(plan, lost, stages)),
    )
    left = _budgeted(without_idle(left))
    try:
        left.check()
    except PlacementError:
        return None
    return left


def _still_standing(plan: Plan, lost: str, stages: Sequence[Stage]) -> Iterator[Standby]:
    """The copies that stay copies: of Blocks that their Worker does not serve now."""
    serves = {(s.worker, b) for s in stages for b in s.blocks}
    for standby in plan.standbys:
        if standby.worker != lost and not any((standby.worker, b) in serves for b in standby.blocks):
            yield standby


def _budgeted(plan: Plan) -> Plan:
    counted = ((w, budget_of(plan, w.name)) for w in plan.workers)
    workers = (
        replace(w, weights_bytes=b.weights_bytes, kv_bytes=b.kv_bytes, workspace_bytes=b.workspace_bytes) for w, b in counted
    )
    return replace(plan, workers=tuple(workers))


def without_idle(plan: Plan) -> Plan:
    """The Plan without Workers that have nothing to do."""
    at_work = busy(plan)
    return replace(plan, workers=tuple(w for w in plan.workers if w.name in at_work))


def busy(plan: Plan) -> set[str]:
    """The Workers of a Plan of one Route that have a Stage, experts or copies."""
    return {s.worker for s in plan.routes[0].stages} | {s.worker for s in plan.shards} | {s.worker for s in plan.standbys}


def _shards(plan: Plan, lost: str) -> Iterator[ExpertShard]:
    """Experts of the Blocks that stay with their owner, those of the lost Worker on whoever stands by for the Block."""
    gone = plan.stage_of(lost)
    for shard in plan.shards:
        if shard.copy or (gone and shard.block in gone.blocks):
            continue
        holder = next((s.worker for s in plan.standbys if shard.block in s.blocks), lost) if shard.worker == lost else shard.worker
        yield replace(shard, worker=holder)


def covers(plan: Plan, stage: Stage) -> list[Standby] | None:
    """What could serve a Stage's Blocks in its place, in order; None where something lacks."""
    runs = sorted((s for s in plan.standbys if s.first >= stage.first and s.end <= stage.end), key=lambda s: s.first)
    if [b for run in runs for b in run.blocks] != list(stage.blocks):
        return None
    ends = {0, plan.model.config.num_blocks - 1}
    if any(not run.ends and ends & set(run.blocks) for run in runs):
        return None
    before, after = neighbours(plan, stage)
    for place, run in enumerate(runs):
        beside = (run.worker == before and place == 0) or (run.worker == after and place == len(runs) - 1)
        if not beside and plan.route_of(run.worker) is not None:
            return None
    return runs if len({run.worker for run in runs}) == len(runs) else None


def neighbours(plan: Plan, stage: Stage) -> tuple[str, str]:
    """The Workers before and after a Stage; empty where there is none."""
    stages = plan.routes[0].stages
    at = stages.index(stage)
    return stages[at - 1].worker if at else "", stages[at + 1].worker if at + 1 < len(stages) else ""
