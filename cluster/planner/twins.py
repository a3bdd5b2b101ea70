"""Identical Devices of a Rig: which of them does what is free, so each does what it already has the weights for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from cluster.planner.choice import Choice, Kind, StageChoice
from cluster.planner.hardware import Hardware, Measured
from cluster.planner.held import Held
from swarm.plan import Plan


def twins(hardware: Hardware) -> list[list[str]]:
    """Names of Devices of one Rig that nothing but their names tells apart, each sorted; those without a twin are left out."""
    groups: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for device in sorted(hardware.devices, key=lambda d: d.name):
        groups[alike(device)].append(device.name)
    return [names for names in groups.values() if len(names) > 1]


def alike(device: Measured) -> tuple[object, ...]:
    """Equal for two Devices that serve alike: the same Rig, kind, memory and speed."""
    kind = device.spec.device.partition(":")[0]
    return (device.rig, kind, device.spec.memory_bytes, device.spec.threads, device.speed, device.fetch_bytes_per_s)


def relabelled(choice: Choice, plan: Plan, hardware: Hardware, before: Held) -> Choice:
    """The Choice with identical Devices in each other's places, so that what the Plan asks of each lacks least."""
    asked = Held.by(plan, plan.model)
    to: dict[str, str] = {}
    for names in twins(hardware):
        prices = np.array(
            [[before.missing_bytes(name, asked.of(role)) + 1e-3 * (name != role) for name in names] for role in names]
        )
        to |= {names[i]: names[j] for i, j in zip(*linear_sum_assignment(prices), strict=True)}
    return _renamed(choice, to)


def _renamed(choice: Choice, to: Mapping[str, str]) -> Choice:
    def kind(k: Kind) -> Kind:
        away = tuple(sorted((to.get(worker, worker), n) for worker, n in k.away))
        return Kind(away, to.get(k.standby, k.standby))

    def stage(s: StageChoice) -> StageChoice:
        return StageChoice(to.get(s.worker, s.worker), tuple((kind(k), n) for k, n in s.kinds))

    return replace(choice, routes=tuple(tuple(stage(s) for s in route) for route in choice.routes))
