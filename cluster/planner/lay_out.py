"""From numbers to names: which Blocks are of which kind, and which experts go where, so that least has to be loaded.

All that is chosen here is free: Blocks weigh the same, experts too, and identical Devices of a Rig serve alike. So each choice
is an assignment problem (Kuhn's Hungarian method), whose prices are the bytes that lack beside the Plan in force.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cluster.planner.block_names import BlockNames, Taken, name_blocks
from cluster.planner.budget import Load, Prices, budget_of
from cluster.planner.choice import Choice, Kind, StageChoice
from cluster.planner.chunks import start_rows
from cluster.planner.costs import Costs
from cluster.planner.gathering import gathered
from cluster.planner.hardware import Hardware
from cluster.planner.held import Held
from cluster.planner.predict import predict
from cluster.planner.twins import relabelled
from swarm.plan import ExpertShard, Model, Plan, Route, Stage, Standby, WorkerSpec

RELABELLINGS = 2
"""How often identical Devices change places: what they lack depends on the experts, which depend on the places."""


def lay_out(choice: Choice, model: Model, hardware: Hardware, load: Load, epoch: int, previous: Plan | None) -> Plan:
    """The Plan of a Choice, with least bytes to load beside `previous`; its notes are empty.

    Raises:
        PlacementError: two Routes of the Choice ask one Worker for more experts of a Block than there are.
    """
    before = Held.by(previous, model)
    best = last = _named(choice, model, load, epoch, before)
    for _ in range(RELABELLINGS if before.parts else 0):
        choice = relabelled(choice, last, hardware, before)
        last = _named(choice, model, load, epoch, before)
        best = min(best, last, key=lambda plan: loaded_bytes(plan, before))
    return finished(best, hardware, load)


def loaded_bytes(plan: Plan, before: Held) -> int:
    """Weights that all Workers together must load to serve a Plan."""
    return sum(before.missing_bytes(worker, parts) for worker, parts in Held.by(plan, plan.model).parts.items())


def finished(plan: Plan, hardware: Hardware, load: Load) -> Plan:
    """A Plan with its Workers' Devices and budgets, copies brought together, and what it will do."""
    specs = {d.name: d.spec for d in hardware.devices}
    plan = replace(plan, workers=tuple(specs[w.name] for w in plan.workers))
    plan = gathered(plan, list(specs.values()), load.spread) if plan.standbys else plan
    plan = replace(plan, workers=tuple(_budgeted(plan, w) for w in plan.workers))
    cut_by = start_rows(plan, Costs(Prices.of(plan.model, load), hardware))
    return replace(plan, start_rows=cut_by, predicted=predict(plan, hardware, load))


def _budgeted(plan: Plan, worker: WorkerSpec) -> WorkerSpec:
    budget = budget_of(plan, worker.name)
    return replace(worker, weights_bytes=budget.weights_bytes, kv_bytes=budget.kv_bytes, workspace_bytes=budget.workspace_bytes)


def _named(choice: Choice, model: Model, load: Load, epoch: int, before: Held) -> Plan:
    """A Plan with all ids; its Workers are names only."""
    routes = tuple(Route(tuple(_stages(route))) for route in choice.routes)
    names = _name_all(choice, routes, before)
    shards = tuple(ExpertShard(w, b.block, e, number) for number, named in enumerate(names) for b in named for w, e in b.away)
    standbys = tuple(s for route, named in zip(routes, names, strict=True) for s in _standbys(route, named))
    staged = [s.worker for route in routes for s in route.stages]
    others = sorted({s.worker for s in shards} | {s.worker for s in standbys})
    return Plan(
        epoch=epoch,
        model=model,
        workers=tuple(WorkerSpec(name, "", "", "", 0) for name in dict.fromkeys([*staged, *others])),
        routes=routes,
        shards=shards,
        standbys=tuple(dict.fromkeys(standbys)),
        sessions=load.sessions,
        context=Prices.of(model, load).context,
        in_flight=choice.in_flight,
        objective=load.objective,
    )


def _stages(route: Sequence[StageChoice]) -> Iterator[Stage]:
    at = 0
    for choice in route:
        yield Stage(choice.worker, at, at + choice.num_blocks)
        at += choice.num_blocks


def _name_all(choice: Choice, routes: Sequence[Route], before: Held) -> list[list[BlockNames]]:
    """The Blocks of each Route in order; a Worker never gets the same expert from two Routes."""
    owners: defaultdict[int, set[str]] = defaultdict(set)
    for stage in (s for route in routes for s in route.stages):
        for block in stage.blocks:
            owners[block].add(stage.worker)
    experts: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    names: list[list[BlockNames]] = []
    for choices, route in zip(choice.routes, routes, strict=True):
        stages = zip(route.stages, choices, strict=True)
        named = [n for stage, c in stages for n in name_blocks(stage, _kinds(c), before, Taken(owners, experts))]
        for name in named:
            for worker, held in name.away:
                experts[worker, name.block] |= set(held)
        names.append(named)
    return names


def _kinds(choice: StageChoice) -> list[Kind]:
    return [kind for kind, count in choice.kinds for _ in range(count)]


def _standbys(route: Route, names: Sequence[BlockNames]) -> Iterator[Standby]:
    """The copies of a Route's Blocks, as long as one Worker's go on within one Stage."""
    for stage in route.stages:
        first = stage.first
        for block in stage.blocks:
            if block + 1 == stage.end or names[block + 1].standby != names[block].standby:
                if names[block].standby:
                    yield Standby(names[block].standby, first, block + 1)
                first = block + 1
