"""Plans for the embedded model, made by hand: any split into Stages, any experts anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from claimed_ports import HOST, claimed_port

from swarm.config import Sizes
from swarm.plan import ExpertShard, Model, Plan, Route, Stage, WorkerSpec
from swarm.weights.describe import describe
from swarm.worker.holdings import part_bytes, parts_of

BLOCKS, EXPERTS = 8, 8
MEMORY = 2**31

Shards = Sequence[tuple[str, int, Sequence[int]]]
"""(Worker, block, expert ids)."""


def nano(dtype: str = "fp32", source: str = "nano") -> Model:
    return describe(source, dtype)


def plan_of(
    ends: Sequence[int],
    shards: Shards = (),
    *,
    dtype: str = "fp32",
    model: Model | None = None,
    names: Sequence[str] | None = None,
    addresses: dict[str, str] | None = None,
    epoch: int = 1,
    sessions: int = 8,
    context: int = 512,
    in_flight: int = 0,
) -> Plan:
    """A Stage for each of `ends`, on the Workers w0, w1, ... (or `names`), and shards on any Worker.

    Args:
        addresses: where each Worker listens; where not given, ports that are free now.
    """
    names = names or [f"w{i}" for i in range(len(ends))]
    everyone = list(dict.fromkeys([*names, *(worker for worker, _, _ in shards)]))
    addresses = addresses if addresses is not None else free_addresses(everyone)
    stages = tuple(Stage(name, first, end) for name, first, end in zip(names, [0, *ends[:-1]], ends, strict=True))
    plan = Plan(
        epoch=epoch,
        model=model or nano(dtype),
        workers=tuple(WorkerSpec(name, "here", "cpu", addresses[name], MEMORY, threads=1) for name in everyone),
        routes=(Route(stages),),
        shards=tuple(ExpertShard(worker, block, tuple(experts)) for worker, block, experts in shards),
        sessions=sessions,
        context=context,
        in_flight=in_flight,
    )
    plan = replace(plan, workers=tuple(replace(w, weights_bytes=weights_of(plan, w.name)) for w in plan.workers))
    plan.check()
    return plan


def weights_of(plan: Plan, name: str) -> int:
    """Bytes of what a Plan gives a Worker."""
    sizes = Sizes(plan.model.config, plan.model.dtype)
    return sum(part_bytes(part, sizes) for part in parts_of(plan, name))


def free_addresses(names: Iterable[str]) -> dict[str, str]:
    """A loopback address with a port that is free now, for each name."""
    return {name: f"{HOST}:{claimed_port()}" for name in names}


def odd_experts_on(worker: str, blocks: Iterable[int] = range(BLOCKS)) -> Shards:
    return [(worker, block, (1, 3, 5, 7)) for block in blocks]


def each_others_experts(first: str, second: str, end: int) -> Shards:
    """Two Stages, blocks 0..end and end..8: each Worker holds the odd experts of the other's Blocks."""
    return [*odd_experts_on(second, range(end)), *odd_experts_on(first, range(end, BLOCKS))]
