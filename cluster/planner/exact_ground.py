"""What an exact search needs to know of a swarm: its Devices in a fixed order, which of them are alike, and their room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cluster.planner.budget import Load, Prices
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware, Measured
from swarm.plan import Model

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Ends:
    """A first and a last Stage, by Device, and what comes with them whatever Blocks go where; seconds.

    Args:
        alone, around: beside all Blocks, with one row and with those of a micro-batch.
        link: the busiest link.
        busy: [N] embedding and head.
        room: [N] bytes for Blocks and experts on each Device.
    """

    first: int
    last: int
    alone: float
    around: float
    link: float
    busy: Floats
    room: Ints


@dataclass(frozen=True)
class Ground:
    """One Route's problem.

    Args:
        devices: sorted by name.
        routes: of the Plan that it is for, which share the Sessions out evenly.
        must: names of Devices that must have a Stage, hold experts or stand by.
    """

    model: Model
    hardware: Hardware
    load: Load
    routes: int = 1
    must: frozenset[str] = frozenset()

    @cached_property
    def devices(self) -> tuple[Measured, ...]:
        return tuple(sorted(self.hardware.devices, key=lambda d: d.name))

    @cached_property
    def prices(self) -> Prices:
        return Prices.of(self.model, self.load, self.routes)

    @cached_property
    def costs(self) -> Costs:
        return Costs(self.prices, self.hardware)

    @property
    def sessions(self) -> float:
        """Sessions of one Route, on average."""
        return self.load.sessions / self.routes

    @property
    def in_flights(self) -> range:
        return range(1, self.prices.sessions + 1)

    @cached_property
    def classes(self) -> tuple[tuple[int, ...], ...]:
        """Devices that can change places without any price changing, by their indices."""
        return classes(self.hardware, self.devices, self.must)

    @cached_property
    def asked(self) -> frozenset[int]:
        """The Devices that must be used, by their indices."""
        return frozenset(i for i, d in enumerate(self.devices) if d.name in self.must)

    @cached_property
    def memory(self) -> Ints:
        return np.array([d.spec.memory_bytes for d in self.devices], np.int64)

    def room(self, first: bool, last: bool) -> Ints:
        """Bytes for Blocks on each Device, were it to have a Stage with those ends; below 0 where it cannot have one."""
        return self.memory - self.prices.fixed(first, last)

    @cached_property
    def helper_room(self) -> Ints:
        """Bytes for experts on each Device, were it to have no Stage."""
        return np.maximum(0, self.memory - self.prices.helper)

    def attainable(self, room: Ints) -> Ints:
        """The most bytes within each room that cores and experts can take, so that rounding takes none beyond it."""
        prices = self.prices
        cores = np.arange(2 * prices.num_blocks + 1) * prices.core
        left = room[:, None] - cores
        taken = np.where(left >= 0, cores + left // prices.expert * prices.expert, -prices.expert)
        return np.asarray(taken.max(axis=1), np.int64)


def classes(hardware: Hardware, devices: Sequence[Measured], must: frozenset[str]) -> tuple[tuple[int, ...], ...]:
    """Indices of interchangeable Devices: of one Rig, or alone on Rigs with equal links, and equal in memory and speed."""
    found: list[list[int]] = []
    for index, device in enumerate(devices):
        group = next((g for g in found if _interchangeable(devices[g[0]], device, hardware, devices, must)), None)
        if group is None:
            found.append([index])
        else:
            group.append(index)
    return tuple(tuple(g) for g in found)


def _interchangeable(a: Measured, b: Measured, hardware: Hardware, devices: Sequence[Measured], must: frozenset[str]) -> bool:
    if (a.spec.memory_bytes, a.speed, a.name in must) != (b.spec.memory_bytes, b.speed, b.name in must):
        return False
    if a.rig == b.rig:
        return True
    if sum(d.rig in (a.rig, b.rig) for d in devices) > 2:
        return False
    others = {d.rig for d in devices} - {a.rig, b.rig} | ({hardware.client} if hardware.client else set())
    between = hardware.links.between
    return hardware.client not in (a.rig, b.rig) and all(between(a.rig, r) == between(b.rig, r) for r in others)


def in_flights_of(ground: Ground) -> tuple[int, ...]:
    """The numbers of micro-batches under way that could be best; to one stream all are the same."""
    return tuple(ground.in_flights)[-1 if ground.load.objective == "latency" else 0 :]
