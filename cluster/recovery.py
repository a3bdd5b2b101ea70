"""What to serve at once after Workers were lost, before anything is decided anew: pure, values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.planner.standing import taken_over
from cluster.roster import Device
from swarm.plan import Plan, WorkerSpec


@dataclass(frozen=True)
class Recovery:
    """A Plan that serves again.

    Args:
        plan: its epoch is the old one.
        loads: a Worker that was started anew must load what it held; else all that is needed is held already.
    """

    plan: Plan
    loads: bool


def recovery(plan: Plan, here: Mapping[str, Device]) -> Recovery | None:
    """How a Plan in force goes on; None where nobody who serves is lost, or where only a new decision helps.

    Standby copies come first, since they load nothing. Else the same Plan again, once all its Workers are back.

    Args:
        here: by name, the Devices that can be planned on.
    """
    lost = [w.name for w in plan.workers if w.name not in here or plan.epoch not in here[w.name].epochs]
    if not any(plan.route_of(name) is not None or plan.shards_of(name) for name in lost):
        return None
    if (left := without(plan, lost)) is not None:
        return Recovery(left, loads=False)
    return Recovery(plan, loads=True) if all(_is_back(plan.worker(name), here) for name in lost) else None


def without(plan: Plan, lost: list[str]) -> Plan | None:
    """The Plan on what standby copies hold already, whoever of these Workers is gone; None where they do not suffice."""
    left: Plan | None = plan
    for name in lost:
        left = taken_over(left, name) if left else None
    if left is None:
        return None
    rigs = dict.fromkeys(plan.worker(name).rig for name in lost)
    return replace(left, notes=(*plan.notes, f"standby copies serve in the place of {', '.join(rigs)}"))


def _is_back(spec: WorkerSpec, here: Mapping[str, Device]) -> bool:
    bare = replace(spec, weights_bytes=0, kv_bytes=0, workspace_bytes=0)
    return spec.name in here and here[spec.name].spec == bare
