"""What a Plan says of itself to people: which Devices it leaves out and why, and what a token costs on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.planner.budget import Load, Prices
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware, Measured
from cluster.planner.optimum import GLANCE, able, in_reach, optimum
from cluster.planner.predict import alone_s, objective_s
from cluster.planner.standing import taken_over
from cluster.planner.twins import alike
from swarm.errors import rate
from swarm.plan import Plan, WorkerSpec

FORCED = 2
"""Devices that are left out for which it is worked out what using them would cost."""
NOTHING = 0.05
"""Tokens/s that nobody notices."""
SOME = 6
"""Blocks that are named one by one."""
NOT_USED = " not used: "


@dataclass(frozen=True)
class Reads:
    """Bytes that one Worker reads for one token of one Session, on average: uniform routing, a full context."""

    worker: str
    weights_bytes: float
    kv_bytes: int


def left_out(plan: Plan, devices: Sequence[WorkerSpec], load: Load) -> tuple[tuple[WorkerSpec, str], ...]:
    """The Devices that a Plan does not use, and why."""
    prices = Prices.of(plan.model, load)
    said = dict(note.split(NOT_USED, 1) for note in plan.notes if NOT_USED in note)
    used = {w.name for w in plan.workers}
    unused = sorted((w for w in devices if w.name not in used), key=lambda w: (w.rig, w.name))
    return tuple((w, said.get(w.name, _why(w, load, prices))) for w in unused)


def _why(worker: WorkerSpec, load: Load, prices: Prices) -> str:
    if worker.memory_bytes < prices.helper + prices.expert:
        return "too small for a workspace and one expert"
    return "no block is left to give it" if load.spread else "the model fits without it"


def notes(plan: Plan, fresh: Plan, hardware: Hardware, load: Load) -> Iterator[str]:
    """The Plan's notes: a capped context, Devices left out, Blocks with experts elsewhere, standby copies.

    Args:
        fresh: the optimum, if nothing had to move.
    """
    if plan.context < load.context:
        yield f"context {load.context} capped at the model's {plan.context}"
    costs = _forced(plan, fresh, hardware, load)
    for worker, why in left_out(plan, [d.spec for d in hardware.devices], load):
        yield f"{worker.name}{NOT_USED}{costs.get(worker.name, why)}"
    yield from _elsewhere(plan)
    yield from _of_each_route(plan, hardware, load)
    if plan.standbys:
        copies = sum(len(s.blocks) for s in plan.standbys)
        lacking = [w.name for w in plan.workers if taken_over(plan, w.name) is None]
        without = f"; without {' or '.join(lacking)} something has to be loaded all the same" if lacking else ""
        yield f"{copies} blocks have a standby copy on another rig{without}"


def _of_each_route(plan: Plan, hardware: Hardware, load: Load) -> Iterator[str]:
    """A Session may be on either Route, and one stream is predicted on the fastest."""
    if len(plan.routes) > 1:
        costs = Costs(Prices.of(plan.model, load), hardware)
        each = (f"{rate(1 / alone_s(plan, r, costs))} from {route.entry}" for r, route in enumerate(plan.routes))
        yield f"{len(plan.routes)} routes: one stream has {', '.join(each)}, whichever it is on"


def _elsewhere(plan: Plan) -> Iterator[str]:
    split = sorted({(s.route, s.block) for s in plan.shards if not s.copy})
    if len(split) > SOME:
        holders = sorted({s.worker for s in plan.shards if not s.copy})
        yield f"{len(split)} blocks have experts elsewhere (on {', '.join(holders)}): one round trip a token each"
        return
    for route, block in split:
        shards = [s for s in plan.shards if (s.route, s.block, s.copy) == (route, block, False)]
        where = ", ".join(f"{len(s.experts)} on {s.worker}" for s in shards)
        yield f"block {block} has experts elsewhere ({where}): one round trip a token"


def _forced(plan: Plan, fresh: Plan, hardware: Hardware, load: Load) -> dict[str, str]:
    """Of Devices that are left out, what using them would cost: the best Plan with each, on as many Routes, beside this one."""
    assert plan.predicted, "a laid out Plan has a prediction"
    used, of_fresh = {w.name for w in plan.workers}, {w.name for w in fresh.workers}
    unused = [d for d in able(hardware, Prices.of(plan.model, load)) if d.name not in used]
    if load.spread or not in_reach(plan.model, hardware, load):
        return {}
    kinds: dict[tuple[object, ...], str] = {}
    found: dict[str, str] = {}
    for device in unused:
        if device.name in of_fresh:
            found[device.name] = "what it would bring does not pay for moving blocks to it"
        elif alike(device) in kinds or len(kinds) < FORCED:
            kinds[alike(device)] = kinds.get(alike(device)) or _price(plan, device, hardware, load)
            found[device.name] = kinds[alike(device)]
    return found


def _price(plan: Plan, device: Measured, hardware: Hardware, load: Load) -> str:
    assert plan.predicted, "a laid out Plan has a prediction"
    choice = optimum(plan.model, hardware, load, frozenset({device.name}), len(plan.routes), GLANCE)
    if choice is None:
        return "no block is left to give it"
    streams = load.sessions if load.objective == "throughput" else 1
    cost = streams / objective_s(plan.predicted, load) - streams / choice.seconds
    return f"it would cost {cost:.1f} tok/s" if cost >= NOTHING else "it would bring nothing"


def reads(plan: Plan) -> tuple[Reads, ...]:
    """What each Worker reads for one token on the Route that it serves."""
    prices = Prices.of(plan.model, Load(plan.sessions, plan.context))
    sizes, config = prices.sizes, plan.model.config
    found = []
    for worker in plan.workers:
        route = plan.route_of(worker.name)
        stage = plan.stage_of(worker.name, route) if route is not None else None
        blocks = stage.blocks if stage else range(0)
        local = sum(config.num_experts - len(plan.remote_experts(worker.name, b)) for b in blocks)
        held = sum(len(s.experts) for s in plan.shards_of(worker.name) if not s.copy)
        touched = (local + held) * config.top_k / config.num_experts
        head = sizes.head if config.num_blocks - 1 in blocks else 0
        row = config.hidden * sizes.hidden_element if 0 in blocks else 0
        weights = len(blocks) * sizes.block_core + touched * sizes.expert + head + row
        found.append(Reads(worker.name, weights, len(blocks) * sizes.kv(plan.context)))
    return tuple(found)
