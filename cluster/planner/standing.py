"""Standby copies that can take a Stage over: all of its Blocks where they can be served from, with the ends of the model.

The search sees to it that each Block has a copy somewhere. Here the copies of one Stage are brought together, as long as memory
lasts: on a Worker without a Stage, or on the neighbours of that Stage, whose own Stages then grow by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from cluster.planner.budget import budget_of
from swarm.errors import PlacementError
from swarm.plan import ExpertShard, Plan, Route, Stage, Standby


def gathered(plan: Plan, spread: bool = False) -> Plan:
    """The Plan with as many Stages as memory allows stood by completely, the largest first; the others as they were.

    Args:
        spread: every Worker keeps something to do.
    """
    if len(plan.routes) != 1:
        return plan
    for stage in sorted(plan.routes[0].stages, key=lambda s: (-len(s.blocks), s.first)):
        copied = {b for s in plan.standbys for b in s.blocks}
        if copied >= set(stage.blocks) and _covers(plan, stage) is None:
            keep = _busy(plan) if spread else set[str]()
            found = (_with(plan, stage, runs) for runs in _ways(plan, stage))
            plan = next((p for p in found if _covers(p, stage) is not None and keep <= _busy(p) and _fits(p)), plan)
    return _without_idle(plan)


def taken_over(plan: Plan, lost: str) -> Plan | None:
    """A Plan without that Worker that serves with what the others hold already; None where its copies do not suffice.

    Copies that are not needed for it stay. Its epoch and prediction are the old ones.
    """
    stages: list[Stage] = []
    for stage in plan.routes[0].stages if len(plan.routes) == 1 else ():
        runs = _covers(plan, stage) if stage.worker == lost else [Standby(stage.worker, stage.first, stage.end)]
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
    left = _budgeted(_without_idle(left))
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


def _without_idle(plan: Plan) -> Plan:
    busy = _busy(plan)
    return replace(plan, workers=tuple(w for w in plan.workers if w.name in busy))


def _busy(plan: Plan) -> set[str]:
    return {s.worker for s in plan.routes[0].stages} | {s.worker for s in plan.shards} | {s.worker for s in plan.standbys}


def _shards(plan: Plan, lost: str) -> Iterator[ExpertShard]:
    """Experts of the Blocks that stay with their owner, those of the lost Worker on whoever stands by for the Block."""
    gone = plan.stage_of(lost)
    for shard in plan.shards:
        if shard.copy or (gone and shard.block in gone.blocks):
            continue
        holder = next((s.worker for s in plan.standbys if shard.block in s.blocks), lost) if shard.worker == lost else shard.worker
        yield replace(shard, worker=holder)


def _covers(plan: Plan, stage: Stage) -> list[Standby] | None:
    """What could serve a Stage's Blocks in its place, in order; None where something lacks."""
    runs = sorted((s for s in plan.standbys if s.first >= stage.first and s.end <= stage.end), key=lambda s: s.first)
    if [b for run in runs for b in run.blocks] != list(stage.blocks):
        return None
    ends = {0, plan.model.config.num_blocks - 1}
    if any(not run.ends and ends & set(run.blocks) for run in runs):
        return None
    before, after = _neighbours(plan, stage)
    for place, run in enumerate(runs):
        beside = (run.worker == before and place == 0) or (run.worker == after and place == len(runs) - 1)
        if not beside and plan.route_of(run.worker) is not None:
            return None
    return runs if len({run.worker for run in runs}) == len(runs) else None


def _neighbours(plan: Plan, stage: Stage) -> tuple[str, str]:
    stages = plan.routes[0].stages
    at = stages.index(stage)
    return stages[at - 1].worker if at else "", stages[at + 1].worker if at + 1 < len(stages) else ""


def _there(plan: Plan, stage: Stage) -> list[Standby]:
    """The copies as they are, with the ends of the model."""
    return [replace(s, ends=_has_end(plan, s.blocks)) for s in plan.standbys if s.first >= stage.first and s.end <= stage.end]


def _ways(plan: Plan, stage: Stage) -> Iterator[list[Standby]]:
    """Where its copies could be, the least change first: as they are, on one Worker, on two with any cut."""
    yield _there(plan, stage)
    before, after = _neighbours(plan, stage)
    idle = [w.name for w in plan.workers if plan.route_of(w.name) is None]
    has = {w.name: sum(len(s.blocks) for s in plan.standbys if s.worker == w.name) for w in plan.workers}
    able = [n for n in dict.fromkeys([before, *sorted(idle, key=lambda n: (-has[n], n)), after]) if n and _may(plan, stage, n)]
    for name in sorted(able, key=lambda n: -has[n]):
        yield [_run(plan, name, stage.blocks)]
    for one, other in combinations(able, 2):
        for cut in range(stage.end - 1, stage.first, -1):
            yield [_run(plan, one, range(stage.first, cut)), _run(plan, other, range(cut, stage.end))]


def _may(plan: Plan, stage: Stage, name: str) -> bool:
    """Whether a Worker is on another Rig than all that serve these Blocks."""
    rigs = {w.name: w.rig for w in plan.workers}
    serving = {stage.worker, *(s.worker for s in plan.shards if s.block in stage.blocks and not s.copy)}
    return rigs[name] not in {rigs[w] for w in serving}


def _run(plan: Plan, name: str, blocks: range) -> Standby:
    return Standby(name, blocks.start, blocks.stop, _has_end(plan, blocks))


def _has_end(plan: Plan, blocks: range) -> bool:
    return 0 in blocks or plan.model.config.num_blocks - 1 in blocks


def _with(plan: Plan, stage: Stage, runs: Sequence[Standby]) -> Plan:
    rest = [s for s in plan.standbys if s.end <= stage.first or s.first >= stage.end]
    return replace(plan, standbys=tuple(sorted((*rest, *runs), key=lambda s: (s.first, s.worker))))


def _fits(plan: Plan) -> bool:
    standing = {s.worker for s in plan.standbys}
    return all(budget_of(plan, w.name).total_bytes <= w.memory_bytes for w in plan.workers if w.name in standing)
