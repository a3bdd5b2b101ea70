"""What host RAM would do where the GPUs do not hold the model: tried on the planner, nothing is asked of anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cluster.hardware.known_cards import known_card
from cluster.planner import Load, make_plan
from cluster.planner.hardware import Hardware, Measured
from swarm.config import Sizes
from swarm.errors import DoesNotFit, PlacementError
from swarm.plan import Model, WorkerSpec

GIB = 2**30
PLAIN = "desktop CPU"
"""Whose speed the RAM is tried at: nobody has measured it."""
RIGS = 3
"""Those with most RAM are tried."""
TRIES = 5
"""Sizes that are tried on one Rig, from the least that could do to all that is free."""


@dataclass(frozen=True)
class Shortage:
    """A model that does not fit.

    Args:
        ram: host RAM that is free beside the Devices, by Rig, bytes.
    """

    model: Model
    hardware: Hardware
    load: Load
    error: DoesNotFit
    ram: Mapping[str, int]


def ram_hint(shortage: Shortage) -> str:
    """`with --ram 24GiB on attic it fits: predicted 6.1 tok/s`; empty where no Rig has that much RAM."""
    for rig, free in sorted(shortage.ram.items(), key=lambda item: (-item[1], item[0]))[:RIGS]:
        if not _rate(shortage, rig, free):
            continue
        for size in _sizes(shortage, free):
            if rate := _rate(shortage, rig, size * GIB):
                return f"with --ram {size}GiB on {rig} it fits: predicted {rate:.1f} tok/s"
    return ""


def _sizes(shortage: Shortage, free: int) -> Iterator[int]:
    """Whole GiB, growing."""
    least, most = -(-max(1, shortage.error.needed_bytes - shortage.error.available_bytes) // GIB), free // GIB
    if least > most:
        return
    sizes = {least + round((most - least) * (step / (TRIES - 1)) ** 2) for step in range(TRIES)}
    yield from sorted(sizes | {min(most, least + 1)})


def _rate(shortage: Shortage, rig: str, memory_bytes: int) -> float:
    """Tokens a second of one stream; 0 where it does not fit even so."""
    spec, dtype = WorkerSpec(f"{rig}/ram", rig, "cpu", "", memory_bytes), shortage.model.dtype
    plain = known_card(PLAIN)
    assert plain
    more = Measured(spec, plain.speed(dtype, Sizes(shortage.model.config, dtype).weight_element))
    try:
        plan = make_plan(shortage.model, replace(shortage.hardware, devices=(*shortage.hardware.devices, more)), shortage.load, 1)
    except PlacementError:
        return 0.0
    return plan.predicted.tokens_per_s if plan.predicted else 0.0
