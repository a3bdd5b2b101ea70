"""What a rig's terminal shows while it serves: how far loading is, who comes and goes, and each Plan as it comes into force."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from swarm.cli.comings import Comings
from swarm.cli.rigs_noted import note_rigs
from swarm.cli.screen import Screen
from swarm.cli.tables import plan_picture
from swarm.errors import SwarmError
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.status_document import read_status
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

POLL_S = 0.5
AGAIN_S = 1.0


class SwarmWatch:
    """Shows what the swarm at an address is doing, and the picture of each Plan that comes into force."""

    def __init__(self, screen: Screen, credentials: Credentials) -> None:
        self._screen, self._credentials = screen, credentials
        self._task: asyncio.Task[None] | None = None

    def at(self, address: str) -> None:
        """Watch the swarm there from now on."""
        if self._task:
            self._task.cancel()
        self._task = asyncio.create_task(self._show(address))

    async def end(self) -> None:
        """Show nothing any more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _show(self, address: str) -> None:
        channel = self._credentials.channel(address)
        stub = SwarmServiceStub(channel)
        try:
            await asyncio.gather(_show_activity(self._screen, address, stub), _show_plans(self._screen, stub))
        finally:
            await channel.close(None)


@asynccontextmanager
async def watching(screen: Screen, address: str, credentials: Credentials) -> AsyncIterator[SwarmWatch]:
    """Watch a swarm until the block ends."""
    watch = SwarmWatch(screen, credentials)
    watch.at(address)
    try:
        yield watch
    finally:
        await watch.end()


async def _show_activity(screen: Screen, address: str, stub: SwarmServiceStub) -> None:
    """And what each Rig takes from where, and who comes and goes, once; where the rigs answer is noted, for when the swarm cannot
    be asked.
    """
    said: list[str] = []
    comings = Comings()
    try:
        while True:
            document: dict[str, Any] = {}
            with contextlib.suppress(grpc.aio.AioRpcError, SwarmError):  # of another version: the rig says nothing of it
                reply = await stub.GetStatus(pb.StatusRequest(), timeout=AGAIN_S)
                document = read_status(reply.json, f"the swarm at {address}")
                note_rigs(address, document)
            if (lines := document.get("sources", said)) != said:
                said = lines
                for line in lines:
                    screen.tell(line)
            for line in comings.news(document):
                screen.tell(line)
            screen.doing(document.get("activity", ""))
            await asyncio.sleep(POLL_S)
    finally:
        screen.doing("")


async def _show_plans(screen: Screen, stub: SwarmServiceStub) -> None:
    epoch = 0
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError, SwarmError):  # the Coordinator is away: the rig says so
            async for reply in stub.WatchPlan(pb.PlanRequest()):
                plan = Plan.from_json(reply.plan, "the swarm's plan") if reply.plan else None
                if plan is not None and plan.epoch > epoch:
                    epoch = plan.epoch
                    screen.show()
                    screen.show(plan_picture(plan))
        await asyncio.sleep(AGAIN_S)
