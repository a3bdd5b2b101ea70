"""A rigs file as hardware to plan on, by what the makers of its cards print; and what torch could not use of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.advice import Home
from cluster.planner.hardware import Hardware, Measured
from cluster.rigs_file import RigDevice, Rigs
from swarm.config import Sizes
from swarm.errors import DeviceError
from swarm.plan import Model, WorkerSpec


@dataclass(frozen=True)
class DryRun:
    """What there is to plan with.

    Args:
        home: with the model in the dtype that was chosen.
        left: Devices that torch cannot use for it, and why.
    """

    rigs: Rigs
    home: Home
    left: tuple[tuple[RigDevice, str], ...]


def dry_run(rigs: Rigs, model: Model, dtype: str) -> DryRun:
    """Hardware for a model.

    Args:
        model: in its own dtype where `dtype` is `auto`: it becomes fp16 where a card has no bf16.

    Raises:
        DeviceError: torch can use none of the Devices.
    """
    able = [d for d in rigs.devices if not d.card.why_not()]
    if dtype == "auto" and any(d.card.why_not_in(model.dtype) for d in able):
        model = replace(model, dtype="fp16")
    left = tuple((d, why) for d in rigs.devices if (why := d.card.why_not() or d.card.why_not_in(model.dtype)))
    if len(left) == len(rigs.devices):
        raise DeviceError(f"none of the devices can be used: {left[0][0].name} ({left[0][0].card.name}): {left[0][1]}")
    out = {d.name for d, _ in left}
    devices = tuple(measured(d, model) for d in rigs.devices if d.name not in out)
    spare = tuple(measured(d, model) for d in rigs.spare.values())
    return DryRun(rigs, Home(model, Hardware(devices, rigs.links, rigs.client), spare), left)


def measured(device: RigDevice, model: Model) -> Measured:
    """A Device as if somebody had measured it."""
    spec = WorkerSpec(device.name, device.rig, device.torch_device, "", device.memory_bytes)
    return Measured(spec, device.card.speed(model.dtype, Sizes(model.config, model.dtype).weight_element))
