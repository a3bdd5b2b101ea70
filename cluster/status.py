"""The document of `swarm status --json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cluster.measurements import LinkFigures, Measurements, Shape
from cluster.replanning import Replanning
from cluster.roster import Device, Rig, Roster
from swarm.config import Sizes
from swarm.plan import Plan
from swarm.wire.overview import noted, planned, worker_entry


def status_document(roster: Roster, replanning: Replanning, book: Measurements, unfit: Mapping[str, str]) -> dict[str, Any]:
    """What the swarm is and does now. Sizes in bytes.

    Args:
        unfit: by name, why a Device cannot run the Plan's dtype.
    """
    published = replanning.published
    plan = published.plan
    return {
        "epoch": plan.epoch if plan else 0,
        "model": plan.model.name if plan else replanning.wishes.target.source,
        "dtype": plan.model.dtype if plan else replanning.wishes.target.dtype,
        "kv": (plan.model.kv if plan else replanning.wishes.target.kv) or "full",
        "waiting": published.waiting,
        "activity": replanning.activity.message,
        "fetching": [coming.document() for coming in replanning.supplying.coming],
        "sources": list(replanning.supplying.lines),
        "notes": noted(plan, (d.status for d in roster.devices() if d.status)) if plan else [],
        "sessions": plan.sessions if plan else replanning.wishes.target.sessions,
        "context": plan.context if plan else replanning.wishes.target.context,
        "objective": plan.objective if plan else replanning.wishes.target.objective,
        "standby": replanning.wishes.target.standby,
        **planned(plan),
        "tokens_per_s": _tokens_per_s(roster, plan),
        "rigs": [_rig(rig) for rig in roster.rigs.values()],
        "workers": [_worker(device, plan, book, unfit.get(device.name, "")) for device in roster.devices()],
        "links": [_link(roster, a, b, found) for (a, b), found in book.links().items() if {a, b} <= roster.rigs.keys()],
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
        "text": rig.offer.text,
    }


def _measured(device: Device, plan: Plan | None, book: Measurements) -> dict[str, Any] | None:
    """What was measured of a Device, in the units that people know; for the Plan's model, or the newest before there is one."""
    figures = book.figures(device.key, Shape.of(plan.model)) if plan else book.newest(device.key)
    if figures is None:
        return None
    element = Sizes(plan.model.config, plan.model.dtype).weight_element if plan else 2.0
    return {
        "bandwidth_gb_s": round(figures.speed.bandwidth / 1e9, 2),
        "tflops": round(figures.speed.flops(element) / 1e12, 3),
        "start_us": round(figures.speed.start_s * 1e6, 1),
        "slowed": round(device.pace.slowed, 2),
        "dtypes": list(figures.dtypes),
        "at": figures.at,
    }


def _link(roster: Roster, a: str, b: str, found: LinkFigures) -> dict[str, Any]:
    between = [roster.rigs[a].name, roster.rigs[b].name]
    if found.link is None:
        return {"between": between, "rtt_ms": None, "gbit_s": None, "why": found.why, "at": found.at}
    rtt_ms, gbit_s = round(found.link.rtt_s * 1e3, 3), round(found.link.bytes_per_s * 8e-9, 3)
    return {"between": between, "rtt_ms": rtt_ms, "gbit_s": gbit_s, "why": "", "at": found.at}


def _worker(device: Device, plan: Plan | None, book: Measurements, unfit: str) -> dict[str, Any]:
    """What the Worker says of itself, and what only the Coordinator knows of it."""
    spec = next((w for w in plan.workers if w.name == device.name), device.spec) if plan else device.spec
    return worker_entry(plan, spec, None if device.silent else device.status) | {
        "label": device.offer.label,
        "tokens_per_s": round(device.tokens_per_s, 2),
        "alive": device.status is not None and not device.silent,
        "out": device.out or unfit,
        "measured": _measured(device, plan, book),
    }
