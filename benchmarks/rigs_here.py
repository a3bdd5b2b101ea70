"""A swarm of Rigs on this machine without Ray: a Coordinator behind its door, and real Worker processes that are started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from benchmarks.processes import free_ports
from cluster.agents import WorkerAgents
from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from cluster.roster import DeviceOffer, RigOffer
from cluster.spare import Spare
from cluster.target import Target
from cluster.versions import own_versions
from cluster.worker_process import WorkerOrder, WorkerProcess
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2_grpc

CREDENTIALS = Credentials("secret")
COMMAND = (sys.executable, "-m", "swarm.worker")
READY_S = 240.0


class RigsHere:
    """Rigs of one Worker each, which come and go as one says.

    Args:
        address: host:port of the door.
        folder: for logs and caches.
        free_port: where on loopback the next Worker may listen.
    """

    def __init__(
        self, coordinator: Coordinator, address: str, folder: Path, stack: AsyncExitStack, free_port: Callable[[], int]
    ) -> None:
        self.coordinator, self.address = coordinator, address
        self.workers: dict[str, WorkerProcess] = {}
        self.spares: dict[str, Spare] = {}
        self._folder, self._stack, self._free_port = folder, stack, free_port
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}

    @property
    def plan(self) -> Plan:
        """The Plan in force."""
        plan = self.coordinator.published.plan
        assert plan, self.coordinator.published.waiting
        return plan

    async def join(self, rig: str, memory_bytes: int, spare: str = "") -> None:
        """Start a Rig.

        Args:
            spare: the warm process that takes its Worker's place: its own, or one that Rigs of this machine share; empty: none.
        """
        where = f"127.0.0.1:{self._free_port()}"
        log, cache = self._folder / f"{rig}.log", self._folder / f"cache-{rig}"
        order = WorkerOrder(COMMAND, f"{rig}/cpu", "cpu", 1, memory_bytes, where, where, CREDENTIALS.key, log, os.environ, cache)
        warm = self._spare(spare) if spare else None

        async def restarted(address: str) -> None:
            await self.coordinator.worker_restarted(rig, address)

        worker = self.workers[rig] = WorkerProcess(order, restarted, lambda message: None, warm)
        self._stack.push_async_callback(self.stop, rig)
        await worker.start()
        offer = DeviceOffer("cpu", memory_bytes, where, 1, "a CPU")
        await self.coordinator.join(RigOffer(rig, rig, (offer,), own_versions(), spread=True))
        self._tasks[rig] = [asyncio.create_task(run) for run in (worker.watch(), self._is_there(rig))]

    def _spare(self, name: str) -> Spare:
        if name not in self.spares:
            spare = self.spares[name] = Spare(COMMAND, CREDENTIALS.key, os.environ, self._folder / f"{name}-spare.log")
            self._stack.push_async_callback(self._end_spare, spare, asyncio.create_task(spare.run()))
        return self.spares[name]

    @staticmethod
    async def _end_spare(spare: Spare, run: asyncio.Task[None]) -> None:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await spare.stop()

    def kill(self, rig: str) -> None:
        """SIGKILL to its Worker, which is started again."""
        if pid := self.workers[rig].pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def stop(self, rig: str) -> None:
        """End a Rig at once, without a word to the swarm."""
        tasks = self._tasks.pop(rig, [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if rig in self.workers:
            self.kill(rig)
            await self.workers.pop(rig).stop()

    async def whole(self, standby: bool = False) -> Plan:
        """Wait until every Worker serves, and has a warm one beside it where its Rig keeps one."""
        async with asyncio.timeout(READY_S):
            while not self._is_whole(standby):
                await asyncio.sleep(0.05)
        return self.plan

    def _is_whole(self, standby: bool) -> bool:
        plan, workers = self.coordinator.published.plan, self.coordinator.status()["workers"]
        if plan is None or not all(w["alive"] and not w["out"] and w["epoch"] == plan.epoch for w in workers):
            return False
        used = {w.rig for w in plan.workers} == set(self.workers)
        return used and (not standby or bool(plan.standbys)) and all(s.is_warm for s in self.spares.values())

    async def _is_there(self, rig: str) -> None:
        async for _ in self.coordinator.watch(rig):
            pass


@asynccontextmanager
async def rigs_here(
    target: Target, folder: Path, free_port: Callable[[], int] = lambda: free_ports(1)[0]
) -> AsyncIterator[RigsHere]:
    """A swarm without Rigs, until the block ends; then its Rigs end too."""
    coordinator = Coordinator(target, WorkerAgents(CREDENTIALS), "a", lambda: 1000.0)
    server = CREDENTIALS.server()
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(coordinator, "here", RayDoor()), server)
    port = CREDENTIALS.bind(server, "127.0.0.1:0")
    await server.start()
    await coordinator.start()
    async with AsyncExitStack() as stack:
        try:
            yield RigsHere(coordinator, f"127.0.0.1:{port}", folder, stack, free_port)
        finally:
            await stack.aclose()
            await coordinator.stop()
            await server.stop(None)
