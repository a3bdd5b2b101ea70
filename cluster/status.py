"""The document of `swarm status --json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cluster.replanning import Replanning
from cluster.roster import Device, Rig, Roster
from swarm.plan import Plan
from swarm.wire.overview import worker_entry


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
    """What the Worker says of itself, and what only the Coordinator knows of it."""
    spec = next((w for w in plan.workers if w.name == device.name), device.spec) if plan else device.spec
    return worker_entry(plan, spec, None if device.silent else device.status) | {
        "label": device.offer.label,
        "tokens_per_s": round(device.tokens_per_s, 2),
        "alive": device.status is not None and not device.silent,
        "out": device.out,
    }
