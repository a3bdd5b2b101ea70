"""A swarm by the real commands: `swarm up` and one `swarm join`, on Ray."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psutil
from census import Snapshot, snapshot
from commands_harness import Person, Running, join_words
from plain_swarm import POLL_S, START_S, is_whole
from shapes import MIB, Shape

from swarm.wire.credentials import Credentials

KEY = "5eed" * 8


class RaySwarm:
    """Two people, each with a machine; processes are known by their home. Blocks this loop only where it starts and ends."""

    rigs = ("attic", "desk")
    head = "attic"
    guests = ("desk",)

    def __init__(self, shape: Shape, folder: Path) -> None:
        self._shape = shape
        self._people = {rig: Person(folder / rig) for rig in self.rigs}
        self._running: dict[str, Running] = {}
        self._join: tuple[str, ...] = ()
        self.address = self._people[self.head].address
        self.credentials = Credentials(KEY, "chaos")

    async def start(self) -> None:
        for rig in self.rigs:
            await self.start_rig(rig)
        await self.whole()

    async def start_rig(self, rig: str) -> None:
        """As a person does who starts it again: with the same words."""
        person, size = self._people[rig], f"cpu={self._shape.memory_bytes // MIB}MiB"
        mine = ("--spread", "--device", size, "--threads", "1", "--name", rig, *person.place)
        if rig == self.head:
            target = self._shape.target
            asked = ("--dtype", target.dtype, "--sessions", str(target.sessions), "--context", str(target.context), "--key", KEY)
            self._running[rig] = running = person.start("up", target.source, *mine, *asked)
            await asyncio.to_thread(running.shows, "Another rig:")
            self._join = join_words(running)
        else:
            self._running[rig] = running = person.start(*self._join, *mine)
            await asyncio.to_thread(running.shows, "joined the swarm")

    async def whole(self) -> None:
        """See `Swarm`."""
        async with asyncio.timeout(START_S):
            while not is_whole(await self.status(), len(self.rigs)):
                await asyncio.sleep(POLL_S)

    async def status(self) -> dict[str, Any]:
        """As the command says it; empty where nobody answers."""
        ran = await asyncio.to_thread(self._people[self.head].run, "status", "--json")
        document: dict[str, Any] = ran.document if ran.code == 0 else {}
        return document

    async def worker_pid(self, rig: str) -> int:
        """See `PlainSwarm`."""
        async with asyncio.timeout(START_S):
            while True:
                workers = (await self.status()).get("workers", ())
                if pid := next((w["pid"] for w in workers if w["alive"] and w["rig"] == rig), None):
                    return int(pid)
                await asyncio.sleep(POLL_S)

    def owner_pid(self, rig: str) -> int:
        return self._running[rig].process.pid

    async def owner_ends(self, rig: str, number: signal.Signals) -> None:
        """And nothing of what it started is left."""
        self._running[rig].send(number)
        await asyncio.to_thread(self._running[rig].ended)
        await asyncio.to_thread(self._people[rig].nothing_is_left)

    async def coordinator_ends(self) -> None:
        """Its actor's process; Ray makes another one."""
        os.kill(self._process("coordinator", self.head), signal.SIGKILL)

    async def start_coordinator(self) -> None:
        """Wait for Ray to do that."""
        await self.whole()

    def raylet_pid(self, rig: str) -> int:
        return self._process("raylet/raylet", rig)

    async def ray_is_back(self, rig: str) -> None:
        """Until another raylet runs, and all is there."""
        async with asyncio.timeout(START_S):
            while not any("raylet/raylet" in line for line in self._people[rig].processes().values()):
                await asyncio.sleep(POLL_S)
        await self.whole()

    async def look(self) -> Snapshot:
        """All that was started with either home."""
        both = [snapshot(str(person.home), (), "SWARM_HOME").processes for person in self._people.values()]
        return Snapshot({pid: held for each in both for pid, held in each.items()}, (await self.status()).get("workers", ()))

    async def stop(self) -> None:
        for person in self._people.values():
            await asyncio.to_thread(person.close)

    def _process(self, word: str, rig: str) -> int:
        """The process id of one process of a Rig whose command line, or Ray's title for it, has a word."""
        pids = [pid for pid, line in self._people[rig].processes().items() if word in line.lower()]
        assert pids, f"no process of {rig} is a {word}"
        return min(pids, key=lambda pid: psutil.Process(pid).create_time())
