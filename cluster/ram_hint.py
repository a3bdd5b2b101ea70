"""What host RAM would do where a swarm's GPUs do not hold the model: tried on the planner, nothing is asked of anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cluster.advice import Adviser, Home
from cluster.hardware.known_cards import known_card
from cluster.planner import Load
from cluster.planner.hardware import Hardware, Measured
from swarm.config import Sizes
from swarm.plan import Model, WorkerSpec

PLAIN = "desktop CPU"
"""Whose speed the RAM is tried at: nobody has measured it."""
RIGS = 3
"""Those with most RAM are tried."""


def ram_hint(model: Model, hardware: Hardware, load: Load, ram: Mapping[str, int]) -> str:
    """What `Adviser.cure_by_ram` says. A swarm serves without standby copies where those have no room.

    Args:
        ram: host RAM that is free beside the Devices, by Rig, bytes.
    """
    most = sorted(ram.items(), key=lambda item: (-item[1], item[0]))[:RIGS]
    home = Home(model, hardware, tuple(_plain(model, rig, free) for rig, free in most))
    return Adviser(home, replace(load, standby=False)).cure_by_ram()


def _plain(model: Model, rig: str, memory_bytes: int) -> Measured:
    """RAM as an ordinary CPU reads it."""
    card = known_card(PLAIN)
    assert card
    speed = card.speed(model.dtype, Sizes(model.config, model.dtype).weight_element)
    return Measured(WorkerSpec(f"{rig}/ram", rig, "cpu", "", memory_bytes), speed)
