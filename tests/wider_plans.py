"""Plans with more than one Route, with copies of experts and with standby copies, from the Plans of `plans.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plans import MEMORY, Shards, free_addresses, nano, weights_of

from swarm.plan import ExpertShard, Model, Plan, Route, Stage, Standby, WorkerSpec


def routes_plan(
    *routes: Sequence[tuple[str, int]],
    spare: Sequence[str] = (),
    shards: Sequence[ExpertShard] = (),
    standbys: Sequence[Standby] = (),
    model: Model | None = None,
    addresses: dict[str, str] | None = None,
    epoch: int = 1,
    sessions: int = 4,
    context: int = 512,
    in_flight: int = 0,
) -> Plan:
    """A Plan of nano in fp32.

    Args:
        routes: for each Route its (Worker, end of its Blocks), in order.
        spare: Workers without a Stage.
    """
    names = list(dict.fromkeys([*(worker for route in routes for worker, _ in route), *spare]))
    addresses = addresses if addresses is not None else free_addresses(names)
    plan = Plan(
        epoch=epoch,
        model=model or nano(),
        workers=tuple(WorkerSpec(name, "here", "cpu", addresses[name], MEMORY, threads=1) for name in names),
        routes=tuple(_route(route) for route in routes),
        shards=tuple(shards),
        standbys=tuple(standbys),
        sessions=sessions,
        context=context,
        in_flight=in_flight,
    )
    return checked(plan)


def with_copies(plan: Plan, copies: Shards, route: int = 0) -> Plan:
    """The Plan with copies of experts on some of its Workers."""
    made = tuple(ExpertShard(worker, block, tuple(experts), route, True) for worker, block, experts in copies)
    return checked(replace(plan, shards=(*plan.shards, *made)))


def checked(plan: Plan) -> Plan:
    """The Plan with what each Worker's part weighs, held against every invariant."""
    plan = replace(plan, workers=tuple(replace(w, weights_bytes=weights_of(plan, w.name)) for w in plan.workers))
    plan.check()
    return plan


def _route(ends: Sequence[tuple[str, int]]) -> Route:
    firsts = [0, *(end for _, end in ends[:-1])]
    return Route(tuple(Stage(worker, first, end) for first, (worker, end) in zip(firsts, ends, strict=True)))
