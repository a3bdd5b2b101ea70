"""What `swarm plan --json` prints: the Plan, what it is predicted to do, what it leaves out, and advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.planner import Load, Prices, needed_bytes, reads
from swarm.plan import Plan


@dataclass(frozen=True)
class Unused:
    """A Device that the Plan does not use."""

    name: str
    rig: str
    device: str
    memory_bytes: int
    why: str


def document(made: Plan, unused: Sequence[Unused], advice: Sequence[str], load: Load) -> dict[str, Any]:
    """All sizes in bytes, times in seconds, Blocks as [first, end)."""
    expert = Prices.of(made.model, load).expert
    return {
        "model": made.model.name,
        "dtype": made.model.dtype,
        "kv": made.model.kv or "full",
        "objective": made.objective,
        "sessions": made.sessions,
        "context": made.context,
        "needed_bytes": needed_bytes(made.model, load),
        "stages": [stage for route in range(len(made.routes)) for stage in _stages(made, route, expert)],
        "shards": [{**asdict(s), "experts": list(s.experts), "bytes": len(s.experts) * expert} for s in made.shards],
        "standbys": [{"worker": s.worker, "blocks": [s.first, s.end]} for s in made.standbys],
        "workers": [{**asdict(w), "free_bytes": w.memory_bytes - w.planned_bytes} for w in made.workers],
        "predicted": _predicted(made),
        "bottleneck": made.predicted.bottleneck if made.predicted else "",
        "unused": [
            {"device": u.device, "why": u.why, "worker": u.name, "rig": u.rig, "memory_bytes": u.memory_bytes} for u in unused
        ],
        "advice": list(advice),
        "notes": list(made.notes),
    }


def _stages(made: Plan, route: int, expert: int) -> list[dict[str, Any]]:
    found = []
    for stage in made.routes[route].stages:
        worker = made.worker(stage.worker)
        held = sum(len(s.experts) for s in made.shards_of(worker.name)) * expert
        found.append(
            {
                "worker": worker.name,
                "rig": worker.rig,
                "device": worker.device,
                "route": route,
                "blocks": [stage.first, stage.end],
                "bytes": worker.planned_bytes - held,
            }
        )
    return found


def _predicted(made: Plan) -> dict[str, Any]:
    times = asdict(made.predicted) if made.predicted else {}
    return {
        **{name: times[name] for name in ("ttft_s", "tokens_per_s", "total_tokens_per_s") if name in times},
        "one_way_transfers_per_token": len(made.routes[0].stages) + 1,
        "shard_round_trips_per_token": len({s.block for s in made.shards if s.route == 0}),
        "reads_per_token": [asdict(r) for r in reads(made)],
    }
