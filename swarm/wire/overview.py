"""The document of `swarm status --json`, from a Plan and from what its Workers say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from swarm.config import AGAIN
from swarm.plan import Plan, WorkerSpec
from swarm.wire.v1 import worker_pb2 as pb


def overview(plan: Plan, statuses: Mapping[str, pb.WorkerStatus]) -> dict[str, Any]:
    """A JSON-ready document; bytes and seconds as plain numbers.

    Args:
        plan: the one in force.
        statuses: by Worker name; a Worker that does not answer is not in it, and is shown as the Plan has it.
    """
    return {
        "epoch": plan.epoch,
        "model": plan.model.name,
        "dtype": plan.model.dtype,
        "sessions": plan.sessions,
        "context": plan.context,
        "objective": plan.objective,
        **planned(plan),
        "workers": [worker_entry(plan, spec, statuses.get(spec.name)) for spec in plan.workers],
        "notes": noted(plan, statuses.values()),
    }


def noted(plan: Plan, statuses: Iterable[pb.WorkerStatus]) -> list[str]:
    """A Plan's notes; what is quantized a second time with the error that it made, as far as the Workers know it."""
    told = [s for s in statuses if s.model_id == plan.model.model_id and s.requantized]
    count = sum(s.requantized for s in told)
    mean = sum(s.requantized * s.requantized_error for s in told) / max(1, count)
    error = f"; mean squared error {mean:.1e} of the weights' squares" if count else ""
    return [f"{note}{error}" if note.startswith(AGAIN) else note for note in plan.notes]


def planned(plan: Plan | None) -> dict[str, Any]:
    """What a Plan is expected to do, what all Sessions wait for, and the copies that it keeps."""
    prediction = plan.predicted if plan else None
    figures = ("ttft_s", "tokens_per_s", "total_tokens_per_s")
    return {
        "predicted": {name: getattr(prediction, name) for name in figures} if prediction else None,
        "bottleneck": prediction.bottleneck if prediction else "",
        "standbys": [{"worker": s.worker, "blocks": [s.first, s.end]} for s in plan.standbys] if plan else [],
    }


def worker_entry(plan: Plan | None, spec: WorkerSpec, status: pb.WorkerStatus | None) -> dict[str, Any]:
    """One Worker of that document: what it says that it holds, or, where it is silent, what the Plan gives it."""
    serves = status is not None and status.epoch > 0
    return {
        "name": spec.name,
        "rig": spec.rig,
        "device": spec.device,
        "pid": status.pid if status else None,
        "address": spec.address,
        "blocks": [status.first, status.end] if status and serves else _planned_blocks(plan, spec.name),
        "experts": _held_experts(status) if status and serves else _planned_experts(plan, spec.name),
        "memory": _memory(spec, status),
        "sessions": status.sessions if status else 0,
        "alive": status is not None,
        "epoch": status.epoch if status else 0,
        "tokens": status.tokens if status else 0,
        "busy_s": status.busy_s if status else 0.0,
        "up_s": status.up_s if status else 0.0,
        "loading": list(status.loading) if status else [],
        "temperature_c": round(status.temperature_c, 1) if status and status.temperature_c else None,
        "watts": round(status.watts, 1) if status and status.watts else None,
        "route": plan.route_of(spec.name) if plan else None,
        "shards": _planned_shards(plan, spec.name),
        "choices": {str(c.block): list(c.counts) for c in (status.choices if status else ())},
    }


def _planned_shards(plan: Plan | None, name: str) -> list[dict[str, Any]]:
    """ExpertShards as the Plan has them: of which Route, and whether the Block's owner has the experts, too."""
    shards = plan.shards_of(name) if plan else ()
    return [{"block": s.block, "experts": list(s.experts), "route": s.route, "copy": s.copy} for s in shards]


def _memory(spec: WorkerSpec, status: pb.WorkerStatus | None) -> dict[str, int]:
    weights = status.weights_bytes if status else 0
    kv = status.kv_bytes if status else 0
    return {
        "total_bytes": spec.memory_bytes,
        "weights_bytes": weights,
        "kv_bytes": kv,
        "kv_used_bytes": status.kv_used_bytes if status else 0,
        "workspace_bytes": spec.workspace_bytes,
        "free_bytes": max(0, spec.memory_bytes - weights - kv - spec.workspace_bytes),
    }


def _planned_blocks(plan: Plan | None, name: str) -> list[int]:
    """The Worker's Blocks, half open; [0, 0] where it has none."""
    stages = (plan.stage_of(name, route) for route in range(len(plan.routes))) if plan else ()
    return next(([s.first, s.end] for s in stages if s is not None), [0, 0])


def _planned_experts(plan: Plan | None, name: str) -> dict[str, list[int]]:
    return {str(shard.block): list(shard.experts) for shard in (plan.shards_of(name) if plan else ())}


def _held_experts(status: pb.WorkerStatus) -> dict[str, list[int]]:
    return {str(shard.block): list(shard.experts) for shard in status.shards}
