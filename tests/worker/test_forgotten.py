"""What nobody can tell a Worker of any more, it finds out: Sessions that their entry Stage does not know are given back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio
import pytest
from plans import plan_of
from raw_client import RawClient, raw, step
from swarm_processes import until, workers_here

from swarm.errors import Moved, Refused
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub
from swarm.worker import forgotten
from swarm.worker.epoch import Epoch
from swarm.worker.worker import Worker

TEXT = [(11 * i) % 2000 + 50 for i in range(64)]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, instead of after seconds."""
    for name in ("QUIET_S", "AGAIN_S", "RETURN_S"):
        monkeypatch.setattr(forgotten, name, 0.0)


def two_stages(sessions: int = 4) -> Plan:
    return plan_of([4, 8], sessions=sessions, context=64)


@asynccontextmanager
async def stub_of(plan: Plan, name: str) -> AsyncIterator[StageServiceStub]:
    async with Credentials().channel(plan.worker(name).address) as channel:
        yield StageServiceStub(channel)


async def gone(worker: Worker, session: bytes) -> None:
    await until(lambda: all(p.table.get(session) is None for p in worker.epochs.pools()), "the session stays")


async def called(plan: Plan, *sessions: bytes, name: str = "w0", route: int = 0, epoch: int = 0) -> list[bytes]:
    """What a Worker calls unknown of these."""
    async with stub_of(plan, name) as stub:
        request = pb.SessionsRequest(sessions=sessions, epoch=epoch or plan.epoch, route=route)
        try:
            return list((await stub.Unknown(request, timeout=10)).sessions)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, name) from None


async def test_a_session_that_the_entry_does_not_know_is_given_back_by_the_others(soon: None) -> None:
    plan = two_stages()
    async with workers_here(plan) as workers, raw(plan) as client, stub_of(plan, "w1") as last:
        known, stray = await client.open(64), os.urandom(16)
        await last.Reserve(client.opening(stray, 64, lease_s=3600.0))  # as where the call that opens it is overtaken
        await gone(workers["w1"], stray)
        assert await client.ask(step(known, TEXT, 0, 10))
        assert [w.status().sessions for w in workers.values()] == [1, 1]


async def test_what_an_entry_knew_that_was_replaced_is_given_back_by_the_others(soon: None) -> None:
    plan = two_stages()
    async with workers_here(plan, only=["w1"]) as rest:
        async with workers_here(plan, only=["w0"]), raw(plan) as client:
            session = await client.open(64, lease_s=3600.0)
            assert await client.ask(step(session, TEXT, 0, 10))
        assert rest["w1"].status().sessions == 1
        async with workers_here(plan, only=["w0"]):
            await gone(rest["w1"], session)
            assert rest["w1"].status().kv_used_bytes == 0


async def test_an_entry_gives_back_what_it_held_as_a_later_stage(soon: None) -> None:
    plan = two_stages()
    async with workers_here(plan) as workers, raw(plan) as client, stub_of(plan, "w0") as entry:
        stray = os.urandom(16)
        await entry.Reserve(client.opening(stray, 64, lease_s=3600.0))  # by the entry of an older epoch
        await gone(workers["w0"], stray)


async def test_a_session_that_waits_to_be_opened_again_is_not_taken_away(soon: None) -> None:
    plan = two_stages(sessions=1)
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(workers_here(plan))
        client, other = [await stack.enter_async_context(raw(plan)) for _ in range(2)]
        taken, waiting = await client.open(64), os.urandom(16)
        call = other.entry.Open(other.opening(waiting, 64))
        await call.read()
        assert len(workers["w0"].opening.turns) == 1
        assert await called(plan, taken, waiting, b"n" * 16) == [b"n" * 16]
        call.cancel()
        await until(lambda: not workers["w0"].opening.wants(waiting), "it waits on")
        assert await called(plan, waiting) == [waiting]
        await client.release(taken)


async def test_an_entry_that_began_just_now_calls_nothing_unknown() -> None:
    plan = two_stages()
    async with workers_here(plan):
        assert await called(plan, b"n" * 16) == []


async def test_who_is_no_entry_or_serves_another_epoch_says_so(soon: None) -> None:
    plan = two_stages()
    async with workers_here(plan):
        with pytest.raises(Refused):
            await called(plan, b"n" * 16, name="w1")
        with pytest.raises(Refused):
            await called(plan, b"n" * 16, route=1)
        with pytest.raises(Moved):
            await called(plan, b"n" * 16, epoch=plan.epoch + 1)


async def test_a_close_that_its_client_does_not_wait_for_is_carried_out_on_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = two_stages()
    async with workers_here(plan) as workers, raw(plan) as client:
        opening, began, go_on = workers["w0"].opening, asyncio.Event(), asyncio.Event()
        session = await client.open(64, lease_s=3600.0)
        really = opening._release_all

        async def late(epoch: Epoch, request: pb.CloseRequest) -> None:
            began.set()
            await go_on.wait()
            await really(epoch, request)

        monkeypatch.setattr(opening, "_release_all", late)
        closing = client.entry.Close(pb.CloseRequest(session=session, epoch=plan.epoch, route=0))
        await until(began.is_set, "it does not begin")
        closing.cancel()
        await settled(client)
        go_on.set()
        for worker in workers.values():
            await gone(worker, session)


async def settled(client: RawClient) -> None:
    """Until what was sent before has arrived, and been dealt with."""
    for _ in range(3):
        await client.entry.Ping(pb.PingRequest())


async def test_a_close_where_no_epoch_serves_is_told_so() -> None:
    plan = two_stages()
    async with workers_here(plan, commit=False), stub_of(plan, "w0") as entry:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await entry.Close(pb.CloseRequest(session=b"s" * 16, epoch=plan.epoch + 1, route=0))
        assert isinstance(from_rpc(raised.value, "w0"), Moved)
