"""What a rig remembers of the swarm's Plan, so that its Decoder begins chats for others while the swarm's door is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import grpc.aio

from swarm.client.plan_source import CALL_S, Known
from swarm.errors import SwarmError
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

AGAIN_S = 1.0


class LastPlan:
    """The Plan that was in force when the door last answered, with its model's small files.

    Args:
        address: host:port of the swarm's door now.
    """

    def __init__(self, address: Callable[[], str], credentials: Credentials) -> None:
        self._address, self._credentials = address, credentials
        self._known: Known | None = None

    def known(self) -> Known | None:
        """None where there was none, or nothing was heard yet."""
        return self._known

    async def follow(self) -> None:
        """Hear of every Plan, until cancelled. It asks no question, so an unloaded model stays where it is."""
        while True:
            with suppress(grpc.aio.AioRpcError, SwarmError):  # the door is silent, or says what this version cannot read
                await self._hear()
            await asyncio.sleep(AGAIN_S)

    async def _hear(self) -> None:
        channel = self._credentials.channel(self._address())
        try:
            stub = SwarmServiceStub(channel)
            async for reply in stub.WatchPlan(pb.PlanRequest()):
                self._known = await self._with_assets(stub, reply.plan) if reply.plan else None
        finally:
            await channel.close(None)

    async def _with_assets(self, stub: SwarmServiceStub, raw: str) -> Known:
        """A Plan with its model's files, which are asked for where the model is another one than before."""
        plan, before = Plan.from_json(raw, "the swarm's plan"), self._known
        if before and before.plan.model.model_id == plan.model.model_id:
            return Known(plan, before.assets)
        reply = await stub.GetAssets(pb.AssetsRequest(model_id=plan.model.model_id), timeout=CALL_S)
        return Known(plan, {asset.name: asset.data for asset in reply.assets})


@asynccontextmanager
async def following(address: Callable[[], str], credentials: Credentials) -> AsyncIterator[LastPlan]:
    """Remember the Plan of the swarm at an address until the block ends."""
    last = LastPlan(address, credentials)
    task = asyncio.create_task(last.follow())
    try:
        yield last
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
