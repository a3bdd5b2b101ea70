"""What a Plan says of itself to people: which Devices it leaves out and why, and what a token costs on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.planner.budget import Load, Prices
from swarm.plan import Plan, WorkerSpec


@dataclass(frozen=True)
class Reads:
    """Bytes that one Worker reads for one token of one Session, on average: uniform routing, a full context."""

    worker: str
    weights_bytes: float
    kv_bytes: int


def left_out(plan: Plan, devices: Sequence[WorkerSpec], load: Load) -> tuple[tuple[WorkerSpec, str], ...]:
    """The Devices that the Plan does not use, and why."""
    prices = Prices.of(plan.model, load)
    used = {w.name for w in plan.workers}
    unused = sorted((w for w in devices if w.name not in used), key=lambda w: (w.rig, w.name))
    return tuple((worker, _why(worker, load, prices)) for worker in unused)


def _why(worker: WorkerSpec, load: Load, prices: Prices) -> str:
    if worker.memory_bytes < prices.helper + prices.expert:
        return "too small for a workspace and one expert"
    return "no block is left to give it" if load.spread else "the model fits without it"


def notes(plan: Plan, devices: Sequence[WorkerSpec], load: Load) -> Iterator[str]:
    """The Plan's notes: a capped context, Devices left out, Blocks with experts elsewhere."""
    if plan.context < load.context:
        yield f"context {load.context} capped at the model's {plan.context}"
    for worker, why in left_out(plan, devices, load):
        yield f"{worker.rig} {worker.device} not used: {why}"
    for block in sorted({s.block for s in plan.shards}):
        where = ", ".join(f"{len(s.experts)} on {s.worker}" for s in plan.shards if s.block == block)
        yield f"block {block} has experts elsewhere ({where}): one round trip a token"


def reads(plan: Plan) -> tuple[Reads, ...]:
    """What each Worker reads for one token on the first Route."""
    prices = Prices.of(plan.model, Load(plan.sessions, plan.context))
    sizes, config = prices.sizes, plan.model.config
    found = []
    for worker in plan.workers:
        stage = plan.stage_of(worker.name)
        blocks = stage.blocks if stage else range(0)
        touched = sum(len(plan.local_experts(worker.name, b)) for b in range(config.num_blocks)) * config.top_k / config.num_experts
        head = sizes.head if config.num_blocks - 1 in blocks else 0
        row = config.hidden * sizes.element if 0 in blocks else 0
        weights = len(blocks) * sizes.block_core + touched * sizes.expert + head + row
        found.append(Reads(worker.name, weights, len(blocks) * sizes.kv(plan.context)))
    return tuple(found)
