"""The invariants of a Plan: what `Plan.check` holds every Plan against before anything believes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from swarm.bits import Bits
from swarm.config import KV_DTYPES
from swarm.errors import UsageError

if TYPE_CHECKING:
    from swarm.plan import Plan, Stage

OBJECTIVES = ("latency", "throughput", "balanced")
"""What a Plan can be decided for; see docs/placement.md."""


def problems(plan: Plan) -> Iterator[str]:
    """What is wrong with a Plan, in words; nothing where every invariant of `Plan.check` holds."""
    config = plan.model.config
    names = [w.name for w in plan.workers]
    if len(set(names)) != len(names):
        yield "two workers have the same name"
    yield from _dtype_problems(plan.model.dtype)
    if config.contradicts_itself:
        yield "the model's shape contradicts itself (heads, windows or experts)"
    if plan.model.kv not in KV_DTYPES:
        yield f"keys and values are to be kept as {plan.model.kv}; known: {', '.join(KV_DTYPES[1:])}"
    counts = (plan.sessions, plan.context, plan.page_positions, plan.chunk_rows, plan.max_rows, plan.start_rows)
    if plan.frame_bytes > plan.message_bytes:
        yield f"{plan.max_rows} rows take {plan.frame_bytes} bytes and a message may have {plan.message_bytes}: lower max_rows"
    if plan.epoch < 1 or plan.in_flight < 0 or min(counts) < 1 or plan.chunk_rows > plan.max_rows:
        yield "epoch, sessions, context, pages or rows are out of range"
    if not 0 <= plan.follows < plan.epoch:
        yield f"epoch {plan.epoch} does not follow {plan.follows}"
    if not plan.routes:
        yield "there is no Route"
    for route in plan.routes:
        yield from _route_problems(route.stages, config.num_blocks, names)
    staged = [s.worker for r in plan.routes for s in r.stages]
    if len(set(staged)) != len(staged):
        yield "a worker has two Stages"
    if plan.objective not in OBJECTIVES:
        yield f"unknown objective {plan.objective}; known: {', '.join(OBJECTIVES)}"
    yield from _standby_problems(plan, names)
    yield from _shard_problems(plan, names)
    for worker in plan.workers:
        if worker.planned_bytes > worker.memory_bytes:
            yield f"{worker.name} is planned for {worker.planned_bytes} bytes and has {worker.memory_bytes}"


def _dtype_problems(dtype: str) -> Iterator[str]:
    try:
        text = str(Bits.of(dtype))
    except UsageError as error:
        yield str(error)
    else:
        if text != dtype:
            yield f"the dtype {dtype} is to be spelled {text}"


def _owners(plan: Plan) -> set[tuple[str, int]]:
    """(Worker, Block) of every Stage."""
    return {(s.worker, b) for r in plan.routes for s in r.stages for b in s.blocks}


def _standby_problems(plan: Plan, names: Sequence[str]) -> Iterator[str]:
    owners, num_blocks = _owners(plan), plan.model.config.num_blocks
    for standby in plan.standbys:
        if standby.worker not in names or not 0 <= standby.first < standby.end <= num_blocks:
            yield f"a standby copy of blocks {standby.first}-{standby.end} is of no worker or of no blocks of this plan"
        if any((standby.worker, b) in owners for b in standby.blocks):
            yield f"{standby.worker} is to stand by for a block that its own Stage has"


def _shard_problems(plan: Plan, names: Sequence[str]) -> Iterator[str]:
    owners, config = _owners(plan), plan.model.config
    seen: set[tuple[str, int, int]] = set()
    for shard in plan.shards:
        if not 0 <= shard.route < len(plan.routes):
            yield f"a shard of block {shard.block} is of route {shard.route}, which the plan does not have"
        if shard.worker not in names:
            yield f"a shard names the worker {shard.worker}, which the plan does not have"
        if not 0 <= shard.block < config.num_blocks or not shard.experts:
            yield f"a shard of block {shard.block} is empty or of no block of this model"
        if any(not 0 <= e < config.num_experts for e in shard.experts):
            yield f"a shard of block {shard.block} names an expert that the model does not have"
        if (shard.worker, shard.block) in owners:
            yield f"{shard.worker} has a shard of block {shard.block}, which its own Stage has"
        keys = {(shard.worker, shard.block, e) for e in shard.experts}
        if keys & seen or len(keys) != len(shard.experts):
            yield f"{shard.worker} has an expert of block {shard.block} twice"
        seen |= keys


def _route_problems(stages: Sequence[Stage], num_blocks: int, names: Sequence[str]) -> Iterator[str]:
    at = 0
    for stage in stages:
        if stage.worker not in names:
            yield f"a Stage names the worker {stage.worker}, which the plan does not have"
        if stage.first != at or stage.end <= stage.first:
            yield f"the Stages do not follow each other at block {at}"
        at = stage.end
    if at != num_blocks:
        yield f"the Stages cover {at} of {num_blocks} blocks"
