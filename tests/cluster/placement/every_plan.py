"""Every Plan there is for a tiny swarm, one by one: nothing is counted, nothing is left out, `predict` prices each.

Too slow for more than a few Blocks; `brute_force` is held against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise, permutations, product

from cluster.planner import Load, Prices, budget_of
from cluster.planner.hardware import Hardware
from cluster.planner.predict import objective_s, predict
from swarm.plan import ExpertShard, Model, Plan, Route, Stage, Standby

Where = tuple[str, ...]
"""Of each expert of a Block, by its id, the Worker that holds it."""


def cheapest(model: Model, hardware: Hardware, load: Load, shared: bool = False) -> tuple[float, Plan] | None:
    """The least of `objective_s` over every Plan, and the first Plan that has it; None where no Plan fits."""
    priced = ((objective_s(predict(plan, hardware, load), load), plan) for plan in every_plan(model, hardware, load, shared))
    return min(priced, key=lambda pair: pair[0], default=None)


def routes_of(load: Load) -> int:
    """The most Routes: each has a Session, and standby copies are what a second Route would be."""
    return 1 if load.standby else min(2, load.sessions)


def every_plan(model: Model, hardware: Hardware, load: Load, shared: bool = False) -> Iterator[Plan]:
    """Every Plan of one or two Routes that holds the invariants and fits, experts by their ids and Blocks by theirs.

    Args:
        shared: a Worker may hold something for both Routes.
    """
    names, blocks = [d.name for d in hardware.devices], model.config.num_blocks
    singles = _routes(names, blocks)
    for routes in [(r,) for r in singles] + list(combinations(singles, 2)) * (routes_of(load) > 1):
        if len({s.worker for r in routes for s in r.stages}) < sum(len(r.stages) for r in routes):
            continue
        ways = [list(_block_ways(model, hardware, load, routes, block)) for block in range(blocks)]
        for chosen in product(*ways):
            plan = plan_of(model, hardware, load, routes, [w for w, _ in chosen], [s for _, s in chosen])
            if fits(plan) and (shared or not _shares(plan)):
                plan.check()
                yield plan


def fits(plan: Plan) -> bool:
    """Whether nobody is planned beyond their memory, as `budget_of` counts it."""
    return all(budget_of(plan, w.name).total_bytes <= w.memory_bytes for w in plan.workers)


def _shares(plan: Plan) -> bool:
    """Whether a Worker holds something for both Routes."""
    serving = {(s.worker, r) for r, route in enumerate(plan.routes) for s in route.stages} | {
        (s.worker, s.route) for s in plan.shards
    }
    return len({worker for worker, _ in serving}) < len(serving)


def _routes(names: Sequence[str], blocks: int) -> list[Route]:
    found = []
    for size in range(1, min(len(names), blocks) + 1):
        for owners in permutations(names, size):
            for cuts in combinations(range(1, blocks), size - 1):
                ends = pairwise((0, *cuts, blocks))
                found.append(Route(tuple(Stage(w, a, b) for w, (a, b) in zip(owners, ends, strict=True))))
    return found


def _block_ways(
    model: Model, hardware: Hardware, load: Load, routes: Sequence[Route], block: int
) -> Iterator[tuple[tuple[Where, ...], str]]:
    """For one Block: who holds each of its experts on each Route, and who stands by (empty: nobody)."""
    owners = [next(s.worker for s in r.stages if block in s.blocks) for r in routes]
    rigs = {d.name: d.rig for d in hardware.devices}
    places = [[w for w in rigs if w == owner or w not in owners] for owner in owners]
    for where in product(*(product(p, repeat=model.config.num_experts) for p in places)):
        if any(len(set(at)) < len(at) for at in zip(*where, strict=True)):
            continue  # one Worker would hold the same expert for both Routes
        serving = {rigs[w] for each in where for w in each} | {rigs[w] for w in owners}
        for standby in [w for w in rigs if rigs[w] not in serving] if load.standby else [""]:
            yield where, standby


def plan_of(
    model: Model, hardware: Hardware, load: Load, routes: Sequence[Route], where: Sequence[tuple[Where, ...]], by: Sequence[str]
) -> Plan:
    """A Plan in full.

    Args:
        where: of each Block, who holds each of its experts, on each Route.
        by: of each Block, who stands by for it; empty: nobody.
    """
    shards = []
    for block, of_routes in enumerate(where):
        for r, holders in enumerate(of_routes):
            owner = next(s.worker for s in routes[r].stages if block in s.blocks)
            for holder in dict.fromkeys(w for w in holders if w != owner):
                shards.append(ExpertShard(holder, block, tuple(e for e, w in enumerate(holders) if w == holder), r))
    standbys = tuple(Standby(w, b, b + 1) for b, w in enumerate(by) if w)
    used = {s.worker for r in routes for s in r.stages} | {s.worker for s in shards} | {s.worker for s in standbys}
    plan = Plan(
        epoch=1,
        model=model,
        workers=tuple(d.spec for d in hardware.devices if d.name in used),
        routes=tuple(routes),
        shards=tuple(shards),
        standbys=standbys,
        sessions=load.sessions,
        context=Prices.of(model, load).context,
    )
    budgets = {w.name: budget_of(plan, w.name) for w in plan.workers}
    workers = tuple(
        replace(w, weights_bytes=b.weights_bytes, kv_bytes=b.kv_bytes, workspace_bytes=b.workspace_bytes)
        for w in plan.workers
        for b in (budgets[w.name],)
    )
    return replace(plan, workers=workers)
