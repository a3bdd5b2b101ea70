"""Asks every Worker for its Status about once a second, and finds the ones that are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from cluster.pace import Work
from cluster.roster import Device
from swarm.errors import Expired, NoSwarm, SwarmError
from swarm.wire.v1 import worker_pb2 as pb

ROUND_S = 1.0
ANSWER_S = 1.0
MISSES = 3
"""Rounds that a Worker may miss before it counts as hung."""
AGAIN_S = 0.1
"""Between the two looks at a Worker that hung up: a connection may break for other reasons."""


class Patrol:
    """Watches the Devices; tells `changed` when one was lost, came back, lost what it held or got slower.

    Args:
        devices: the Devices of now.
        changed: called after the Device's `out`, `silent` and `epochs` were set.
    """

    def __init__(self, devices: Callable[[], Iterable[Device]], changed: Callable[[], object]) -> None:
        self._devices, self._changed = devices, changed
        self._suspected: dict[str, asyncio.Task[None]] = {}

    def suspect(self, name: str) -> None:
        """Somebody waited for that Worker in vain: look at all at once, and take one silent answer of it for enough."""
        for device in self._devices():
            if not device.silent and device.name not in self._suspected:
                look = self.look(device, misses=1 if device.name == name else None)
                self._suspected[device.name] = task = asyncio.get_running_loop().create_task(look)
                task.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._suspected = {name: other for name, other in self._suspected.items() if other is not task}

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.gather(*(self.look(device) for device in self._devices()))
            await asyncio.sleep(ROUND_S)

    async def hear(self, device: Device) -> None:
        """Ask one Worker until it answers or counts as lost: one answer that is late says nothing."""
        await self.look(device)
        while device.agent and device.misses and not device.silent:
            await self.look(device)

    async def look(self, device: Device, misses: int | None = MISSES) -> None:
        """Ask one Worker; a process that is gone is asked once more.

        Args:
            misses: a silent one counts as hung after so many; None: this look makes none.
        """
        agent = device.agent
        if agent is None:
            return
        try:
            status = await agent.status(ANSWER_S)
        except NoSwarm:
            await self._look_again(device, misses)
        except Expired:
            self._missed(device, misses)
        except SwarmError as error:
            self._lose(device, str(error))
        else:
            self._answered(device, status)

    async def _look_again(self, device: Device, misses: int | None) -> None:
        if device.silent or device.agent is None:
            return
        await asyncio.sleep(AGAIN_S)
        agent = device.agent
        try:
            self._answered(device, await agent.status(ANSWER_S))
        except Expired:
            self._missed(device, misses)
        except SwarmError:
            if device.agent is not agent:
                return  # it was given up meanwhile: that is why
            device.ended_at = time.monotonic()
            self._lose(device, "its worker is gone")

    def _missed(self, device: Device, misses: int | None) -> None:
        if misses is not None:
            device.misses += 1
            if device.misses >= misses:
                self._lose(device, "its worker does not answer, though its process may be there")

    def _lose(self, device: Device, why: str) -> None:
        if not device.silent:
            device.fail(why, silent=True)
            device.tokens_per_s = 0.0
            self._changed()

    def _answered(self, device: Device, status: pb.WorkerStatus) -> None:
        before, device.status, device.misses = device.status, status, 0
        # Containers give a pid again; two looks at once may be answered in another order.
        restarted = before is not None and (before.pid != status.pid or status.up_s < before.up_s - ANSWER_S)
        if before is not None and not restarted and status.up_s > before.up_s:
            device.tokens_per_s = (status.tokens - before.tokens) / (status.up_s - before.up_s)
        slowed = device.pace.slowed
        device.pace = device.pace.seen(status.epoch, _work(status), device.sharers)
        if before is None or restarted or device.silent:
            device.epochs = set(status.epochs)
        if device.silent or (restarted and device.out):
            device.readmit()
            self._changed()
        elif restarted or device.pace.slowed != slowed:
            self._changed()


def _work(status: pb.WorkerStatus) -> Work:
    """What its Stage computed, or its ExpertShards where it has no Stage."""
    work = status.steps if status.end > status.first else status.shard_steps
    return Work(work.count, work.seconds, work.bytes)
