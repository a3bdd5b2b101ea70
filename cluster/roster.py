"""Which Rigs joined, and the Devices they brought."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from cluster.hardware.detect import GPU_MARGIN_BYTES
from cluster.pace import Pace
from cluster.pauses import Pauses
from swarm.errors import SwarmError
from swarm.plan import WorkerSpec
from swarm.wire.v1 import worker_pb2 as pb

if TYPE_CHECKING:
    from cluster.agents import Agent

_LOG = logging.getLogger(__name__)
PROMISE_S = 600.0
"""How long a name is kept for a Rig that knocked: it starts Ray and its Workers before it joins."""


ROOM_STEP_BYTES = 256 * 2**20
"""A card's free memory changes by less for what its driver does, and is counted in such steps."""


@dataclass(frozen=True)
class Versions:
    """What a Rig runs. An empty string: not installed there."""

    swarm: str
    python: str
    ray: str
    torch: str


@dataclass(frozen=True)
class DeviceOffer:
    """A Device as its Rig offers it; its Worker listens at `worker_address` (host:port)."""

    device: str
    memory_bytes: int
    worker_address: str
    threads: int = 0
    label: str = ""


@dataclass(frozen=True)
class RigOffer:
    """A Rig that wants in.

    Args:
        spread: use every Device, also where fewer would do.
        ram_bytes: host RAM that is free beside what the Devices give.
        text: host:port of its Decoder for others; empty: it has none.
    """

    rig_id: str
    name: str
    devices: tuple[DeviceOffer, ...]
    versions: Versions
    spread: bool = False
    ram_bytes: int = 0
    text: str = ""


@dataclass
class Device:
    """A Device in the swarm, and what is known of its Worker now."""

    name: str
    rig_id: str
    rig: str
    offer: DeviceOffer
    agent: Agent | None = None
    holding: str = ""
    status: pb.WorkerStatus | None = None
    misses: int = 0
    out: str = ""
    """Why it is not planned on; empty: it is."""
    paused: bool = False
    """Its people want it for something else: it is not planned on until it is resumed."""
    silent: bool = False
    """Its Worker does not answer; one that does again is planned on again."""
    ended_at: float = -inf
    """When its Worker's process was found gone, on the monotonic clock."""
    refusal: SwarmError | None = None
    """What it answered when it did not load its part."""
    epochs: set[int] = field(default_factory=set)
    """Epochs that its Worker may still hold, served or only prepared; empty while nothing is known of it."""
    tokens_per_s: float = 0.0
    sharers: int = 1
    """CPU Devices of its Rig, itself included: they slow each other down, which says nothing of anybody else."""
    room_bytes: int | None = None
    """What a card truly has for its Worker, as it was measured last; None: not known, or no card."""
    pace: Pace = field(default_factory=Pace)
    """How fast it reads while it serves."""

    @property
    def key(self) -> str:
        """What is measured of it is kept under: the same after a restart, another one for another card or thread count."""
        return f"{self.rig_id}/{self.place} {self.offer.label} {self.offer.threads}".strip()

    @property
    def place(self) -> str:
        """Its name on its Rig: `cuda:0`."""
        return self.name.removeprefix(f"{self.rig}/")

    @property
    def usable(self) -> bool:
        """Whether it may be planned on, as far as it is asked itself."""
        return self.agent is not None and not self.out and not self.paused

    @property
    def address(self) -> str:
        return self.offer.worker_address

    @property
    def spec(self) -> WorkerSpec:
        o = self.offer
        memory_bytes = o.memory_bytes if self.room_bytes is None else min(o.memory_bytes, self.room_bytes)
        return WorkerSpec(self.name, self.rig, o.device, o.worker_address, memory_bytes, threads=o.threads)

    def found_free(self, free_bytes: int) -> None:
        """What was measured to be free beside what its Worker holds now; a few pages more or less are no news.

        Args:
            free_bytes: with the Worker's own context and libraries there, which what is left free beside it is for.
        """
        if self.offer.device == "cpu" or not free_bytes:
            return
        held = self.status.weights_bytes + self.status.kv_bytes if self.status else 0
        room = max(0, free_bytes + held - GPU_MARGIN_BYTES)
        if self.room_bytes is None or abs(room - self.room_bytes) > ROOM_STEP_BYTES:
            self.room_bytes = room // ROOM_STEP_BYTES * ROOM_STEP_BYTES

    def go_on_as(self, was: Device) -> None:
        """What was known of it holds: its Rig joins again. A Worker that was started anew says so with its next Status."""
        self.pace, self.room_bytes, self.ended_at = was.pace, was.room_bytes, was.ended_at
        if not was.silent:
            self.status, self.epochs = was.status, was.epochs  # the same set: what a change under way notes counts

    def fail(self, why: str, silent: bool, refusal: SwarmError | None = None) -> None:
        """Plan without it from now on."""
        if why != self.out:
            _LOG.warning("%s is left out: %s", self.name, why)
        self.out, self.silent, self.refusal = why, silent, None if silent else refusal
        if silent:
            self.epochs = set()  # another one: its Rig may have joined again, and goes on with what was known

    def readmit(self) -> None:
        """Plan with it again."""
        if self.out:
            _LOG.info("%s is planned on again", self.name)
        self.out, self.silent, self.refusal = "", False, None


@dataclass
class Rig:
    """A Rig in the swarm."""

    offer: RigOffer
    name: str
    devices: list[Device] = field(default_factory=list)
    leaving: bool = False
    held: str = ""
    """Why it is not planned on for a while though it is there; empty: it is. See `cluster.flapping`."""
    ray_node: str = ""
    """The id of its Ray node that was seen last; empty: none was."""


class Roster:
    """The Rigs by id, in the order in which they joined; names of Rigs and Workers are unique.

    Args:
        clock: seconds, growing.
        pauses: which Devices are paused.
    """

    def __init__(self, clock: Callable[[], float], pauses: Pauses | None = None) -> None:
        self.rigs: dict[str, Rig] = {}
        self.pauses = pauses or Pauses()
        self._clock = clock
        self._promised: dict[str, tuple[str, float]] = {}  # rig id → a name, and until when no other Rig gets it

    def unique_name(self, rig_id: str, wanted: str) -> str:
        """The name a Rig goes by: the one it wants, with a number behind it where another Rig has that or will have it."""
        now = self._clock()
        taken = {r.name for i, r in self.rigs.items() if i != rig_id}
        taken |= {name for i, (name, until) in self._promised.items() if i != rig_id and now < until}
        names = (wanted if n == 1 else f"{wanted}-{n}" for n in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    def promise(self, rig_id: str, wanted: str, for_s: float = PROMISE_S) -> str:
        """Keep a unique name for a Rig, which names its Workers by it before it joins."""
        name = self.unique_name(rig_id, wanted)
        self._promised[rig_id] = name, self._clock() + for_s
        return name

    def admit(self, offer: RigOffer) -> tuple[Rig, list[Device]]:
        """Count a Rig in, in the place of what it was before; returns the Devices that it had then, too."""
        before = self.rigs.pop(offer.rig_id, None)
        rig = Rig(offer, self.unique_name(offer.rig_id, offer.name))
        self._promised.pop(offer.rig_id, None)
        cpus = sum(device.device == "cpu" for device in offer.devices)
        rig.devices = [
            Device(f"{rig.name}/{label}", offer.rig_id, rig.name, device, sharers=cpus if device.device == "cpu" else 1)
            for label, device in zip(_labels(offer.devices), offer.devices, strict=True)
        ]
        for each in rig.devices:
            each.paused = self.pauses.has(each.rig_id, each.place)
            was = next((d for d in before.devices if d.key == each.key and d.offer == each.offer), None) if before else None
            if was is not None:
                each.go_on_as(was)
        self.rigs[offer.rig_id] = rig
        return rig, before.devices if before else []

    def devices(self) -> Iterator[Device]:
        for rig in self.rigs.values():
            yield from rig.devices

    def usable(self) -> list[Device]:
        """The Devices that may be planned on."""
        rigs = [r for r in self.rigs.values() if not r.leaving and not r.held]
        return [d for r in rigs for d in r.devices if d.usable]

    def let_all_in(self) -> bool:
        """Plan with those again that are held back; whether there were any."""
        held = [r for r in self.rigs.values() if r.held]
        for rig in held:
            rig.held = ""
        return bool(held)


def _labels(offers: tuple[DeviceOffer, ...]) -> Iterator[str]:
    """`cuda:0`, `cpu`; where a Rig brings several of one name, `cpu:0` and `cpu:1`."""
    names = [offer.device for offer in offers]
    for place, name in enumerate(names):
        yield name if names.count(name) == 1 else f"{name}:{names[:place].count(name)}"
