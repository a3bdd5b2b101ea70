"""A rigs file as hardware to plan on, by what the makers of its cards print; and what torch could not use of it."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.advice import Home
from cluster.auto_dtype import chosen, ladder, own_dtype
from cluster.planner import Load
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
        why: why `auto` chose a lesser dtype than the checkpoint's own; empty where it did not.
    """

    rigs: Rigs
    home: Home
    left: tuple[tuple[RigDevice, str], ...]
    why: str = ""


def dry_run(rigs: Rigs, model: Model, dtype: str, load: Load) -> DryRun:
    """Hardware for a model.

    Args:
        model: in its own dtype where `dtype` is `auto`: it becomes the best that fits, as in a swarm.

    Raises:
        DeviceError: torch can use none of the Devices.
    """
    why = ""
    if dtype == "auto":
        all_have_bf16 = not any(d.card.why_not_in("bf16") for d in rigs.devices if not d.card.why_not())
        ways = ladder(model, own_dtype(model, all_have_bf16))
        model, why = chosen([(way, _hardware(rigs, way)) for way in ways], load)
        if all(_why_not(d, model) for d in rigs.devices):  # cards without bf16 only: what lacks is memory for their fp16
            model, why = ways[0], ""
    left = tuple((d, reason) for d in rigs.devices if (reason := _why_not(d, model)))
    if len(left) == len(rigs.devices):
        raise DeviceError(f"none of the devices can be used: {left[0][0].name} ({left[0][0].card.name}): {left[0][1]}")
    spare = tuple(measured(d, model) for d in rigs.spare.values())
    return DryRun(rigs, Home(model, _hardware(rigs, model), spare), left, why)


def _hardware(rigs: Rigs, model: Model) -> Hardware:
    return Hardware(tuple(measured(d, model) for d in rigs.devices if not _why_not(d, model)), rigs.links, rigs.client)


def _why_not(device: RigDevice, model: Model) -> str:
    return device.card.why_not() or device.card.why_not_in(model.dtype)


def measured(device: RigDevice, model: Model) -> Measured:
    """A Device as if somebody had measured it."""
    spec = WorkerSpec(device.name, device.rig, device.torch_device, "", device.memory_bytes)
    return Measured(spec, device.card.speed(model.dtype, Sizes(model.config, model.dtype).weight_element))
