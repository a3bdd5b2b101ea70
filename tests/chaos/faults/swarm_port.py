"""What faults need of a swarm."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Protocol

from census import Snapshot
from links import Links

from swarm.wire.credentials import Credentials


class Swarm(Protocol):
    """Rigs go by name; each has an owner process and one Worker."""

    credentials: Credentials

    @property
    def rigs(self) -> tuple[str, ...]: ...

    @property
    def guests(self) -> tuple[str, ...]:
        """Those without whom the swarm still has its Coordinator."""
        ...

    @property
    def address(self) -> str:
        """host:port of the door."""
        ...

    async def start(self) -> None: ...

    async def whole(self) -> None:
        """Until all that should be there serves. TimeoutError."""
        ...

    async def worker_pid(self, rig: str) -> int: ...

    def owner_pid(self, rig: str) -> int: ...

    async def owner_ends(self, rig: str, number: signal.Signals) -> None: ...

    async def start_rig(self, rig: str) -> None: ...

    async def coordinator_ends(self) -> None: ...

    async def start_coordinator(self) -> None: ...

    async def look(self) -> Snapshot: ...

    async def stop(self) -> None: ...


class LinkedSwarm(Swarm, Protocol):
    links: Links


class DiskSwarm(Swarm, Protocol):
    def cache(self, rig: str) -> Path: ...

    def fill_disk(self, rig: str) -> None: ...

    def empty_disk(self, rig: str) -> None: ...


class RaySwarm(Swarm, Protocol):
    head: str

    def raylet_pid(self, rig: str) -> int: ...

    async def ray_is_back(self, rig: str) -> None: ...
