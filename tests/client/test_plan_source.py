"""Who hears of new Plans goes on hearing of them, whatever is found where a key is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from swarm.client import plan_source
from swarm.client.plan_source import SwarmPlan
from swarm.errors import UsageError, WrongKey
from swarm.wire.credentials import Credentials
from swarm.wire.status import to_rpc
from swarm.wire.v1 import swarm_pb2 as pb


@pytest.mark.parametrize("damage", [UsageError("what is kept there is no key"), PermissionError("swarm.json")])
async def test_a_kept_key_that_cannot_be_used_ends_no_watching(monkeypatch: pytest.MonkeyPatch, damage: Exception) -> None:
    monkeypatch.setattr(plan_source, "RECONNECT_S", 0.01)
    asked = 0

    def kept() -> str:
        raise damage

    class Refusing:
        async def WatchPlan(self, request: pb.PlanRequest) -> AsyncIterator[pb.PlanReply]:
            nonlocal asked
            asked += 1
            code, details = to_rpc(WrongKey("the swarm's key was changed"))
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
            yield pb.PlanReply()

    source = SwarmPlan("127.0.0.1:9", Credentials("old", kept=kept))
    monkeypatch.setattr(source, "_stub", Refusing())
    watching = asyncio.create_task(source._watch())
    async with asyncio.timeout(60):
        while asked < 3 and not watching.done():
            await asyncio.sleep(0.01)
    assert not watching.done() and source.waiting == str(damage)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await source.close()
