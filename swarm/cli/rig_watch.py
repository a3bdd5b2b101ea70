"""What a rig's terminal shows while it serves: how far loading is, and each Plan as it comes into force."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import grpc.aio

from swarm.cli import output
from swarm.cli.tables import plan_picture
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

POLL_S = 0.5
AGAIN_S = 1.0


class Loading:
    """A line at the bottom of the terminal that says what the swarm is doing; nothing where no terminal is."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self._address, self._credentials = address, credentials
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if output.stderr().is_terminal:
            self._task = asyncio.get_running_loop().create_task(self._show())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _show(self) -> None:
        channel = self._credentials.channel(self._address)
        stub = SwarmServiceStub(channel)
        with output.stderr().status("") as line:
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    reply = await stub.GetStatus(pb.StatusRequest(), timeout=AGAIN_S)
                    line.update(json.loads(reply.json).get("activity", ""))
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def show_plans(address: str, credentials: Credentials) -> AsyncIterator[None]:
    """Print the picture of each Plan that comes into force, until the block ends."""
    task = asyncio.get_running_loop().create_task(_show_plans(address, credentials))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _show_plans(address: str, credentials: Credentials) -> None:
    channel = credentials.channel(address)
    stub, epoch = SwarmServiceStub(channel), 0
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):  # the Coordinator is away: the rig says so
            async for reply in stub.WatchPlan(pb.PlanRequest()):
                plan = Plan.from_json(reply.plan, "the swarm's plan") if reply.plan else None
                if plan is not None and plan.epoch > epoch:
                    epoch = plan.epoch
                    output.stdout().print()
                    output.stdout().print(plan_picture(plan))
        await asyncio.sleep(AGAIN_S)
