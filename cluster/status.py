"""The document of `swarm status --json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cluster.replanning import Replanning
from cluster.roster import Device, Rig, Roster
from swarm.plan import Plan


def status_document(roster: Roster, replanning: Replanning) -> dict[str, Any]:
    """What the swarm is and does now. Sizes in bytes."""
    published = replanning.published
    plan = published.plan
    return {
        "epoch": plan.epoch if plan else 0,
        "model": plan.model.name if plan else replanning.target.source,
        "dtype": plan.model.dtype if plan else replanning.target.dtype,
        "waiting": published.waiting,
        "activity": replanning.activity.message,
        "notes": list(plan.notes) if plan else [],
        "sessions": plan.sessions if plan else replanning.target.sessions,
        "context": plan.context if plan else replanning.target.context,
        "tokens_per_s": _tokens_per_s(roster, plan),
        "rigs": [_rig(rig) for rig in roster.rigs.values()],
        "workers": [_worker(device, plan) for device in roster.devices()],
    }


def _tokens_per_s(roster: Roster, plan: Plan | None) -> float:
    """Rows a second of the last Stages: each token ends there once."""
    last = {route.last for route in plan.routes} if plan else set()
    return round(sum(d.tokens_per_s for d in roster.devices() if d.name in last), 2)


def _rig(rig: Rig) -> dict[str, Any]:
    return {
        "id": rig.offer.rig_id,
        "name": rig.name,
        "versions": asdict(rig.offer.versions),
        "leaving": rig.leaving,
        "devices": [d.name for d in rig.devices],
    }


def _worker(device: Device, plan: Plan | None) -> dict[str, Any]:
    status = device.status
    stage = next((s for r in plan.routes for s in r.stages if s.worker == device.name), None) if plan else None
    shards = plan.shards_of(device.name) if plan else ()
    weights, kv = (status.weights_bytes, status.kv_bytes) if status else (0, 0)
    total = device.offer.memory_bytes
    return {
        "name": device.name,
        "rig": device.rig,
        "device": device.offer.device,
        "label": device.offer.label,
        "pid": status.pid if status else 0,
        "address": device.address,
        "blocks": [stage.first, stage.end] if stage else [],
        "experts": {str(s.block): list(s.experts) for s in shards},
        "memory": {
            "total_bytes": total,
            "weights_bytes": weights,
            "kv_bytes": kv,
            "kv_used_bytes": status.kv_used_bytes if status else 0,
            "free_bytes": max(0, total - weights - kv),
        },
        "sessions": status.sessions if status else 0,
        "tokens_per_s": round(device.tokens_per_s, 2),
        "busy_s": status.busy_s if status else 0.0,
        "loading": list(status.loading) if status else [],
        "alive": bool(status) and not device.silent,
        "out": device.out,
    }
