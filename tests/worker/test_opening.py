"""A Session opens on all Stages or on none; where there is no room it queues, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import pytest
from plans import plan_of
from raw_client import RawClient, bits, raw, step
from swarm_processes import until, workers_here

from swarm.errors import Lost, Moved, TooLong
from swarm.plan import Plan
from swarm.too_long import remedy
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.callers import Caller
from swarm.worker.opening import reserve_here
from swarm.worker.worker import Worker

TEXT = [(11 * i) % 2000 + 50 for i in range(64)]


@dataclass
class Small:
    """Two Stages with room for two Sessions of 64 positions."""

    plan: Plan
    workers: dict[str, Worker]
    client: RawClient

    def sessions(self) -> list[int]:
        return [worker.status().sessions for worker in self.workers.values()]

    def used(self) -> list[int]:
        return [worker.status().kv_used_bytes for worker in self.workers.values()]

    async def fill(self) -> list[bytes]:
        return [await self.client.open(64), await self.client.open(64)]


@asynccontextmanager
async def small() -> AsyncIterator[Small]:
    plan = plan_of([4, 8], sessions=2, context=64)
    async with workers_here(plan) as workers, raw(plan) as client:
        yield Small(plan, workers, client)


class Queued:
    """An Open call that waits, and what it was told."""

    def __init__(self, client: RawClient, session: bytes = b"", positions: int = 64) -> None:
        self.session = session or os.urandom(16)
        self.told: list[tuple[int, int]] = []
        self.task = asyncio.create_task(self._open(client, client.opening(self.session, positions)))

    async def _open(self, client: RawClient, request: pb.OpenRequest) -> None:
        async for reply in client.entry.Open(request):
            self.told.append((reply.state, reply.place))


async def test_a_full_swarm_queues_sessions_tells_their_place_and_opens_them_in_order() -> None:
    async with small() as swarm:
        first, second = await swarm.fill()
        waiting = [Queued(swarm.client)]
        await until(lambda: waiting[0].told == [(pb.OpenReply.QUEUED, 1)], "no place was told")
        waiting.append(Queued(swarm.client))
        await until(lambda: waiting[1].told == [(pb.OpenReply.QUEUED, 2)], "no place was told")
        await swarm.client.release(first)
        await until(waiting[0].task.done, "the first in the queue did not open")
        await until(lambda: waiting[1].told[-1] == (pb.OpenReply.QUEUED, 1), "the second was not told that it moved up")
        await swarm.client.release(second)
        await until(waiting[1].task.done, "the second in the queue did not open")
        assert [q.told[-1][0] for q in waiting] == [pb.OpenReply.OPENED] * 2
        assert swarm.sessions() == [2, 2]


async def test_what_to_do_about_a_long_chat_is_what_helps() -> None:
    async with small() as swarm:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await swarm.client.open(65)
        assert "the swarm has 64 a session" in str(refused.value) and "start the swarm with a larger --context" in str(
            refused.value
        )
    most = plan_of([8]).model.config.max_positions
    assert "at most" in remedy(plan_of([8], context=most), "ask less") and "larger" not in remedy(
        plan_of([8], context=most), "ask less"
    )


async def test_who_reserves_last_says_whose_a_session_is_so_that_a_stage_which_was_the_entry_closes_nothing_elsewhere() -> None:
    async with small() as swarm:
        session = await swarm.client.open(64)
        epochs = swarm.workers["w0"].epochs
        assert epochs.current
        opened = epochs.current.pool.table.find(session)
        assert opened.owner is not None
        reserve_here(epochs, swarm.client.opening(session, 64), "w0")  # as another entry asks, after a change of the Plan
        assert opened.owner is None


async def test_sessions_that_come_together_where_there_is_room_open_together_and_hear_of_no_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of([4, 8], sessions=4, context=64)
    async with workers_here(plan) as workers, raw(plan) as client:
        opening, trying = workers["w0"].opening, 0
        really, all_try = opening._try_all, asyncio.Event()

        async def slowly(request: pb.OpenRequest, caller: Caller) -> int | None:
            nonlocal trying
            trying += 1
            if trying == 4:
                all_try.set()
            async with asyncio.timeout(60):
                await all_try.wait()
            return await really(request, caller)

        monkeypatch.setattr(opening, "_try_all", slowly)
        together = [Queued(client) for _ in range(4)]
        await until(lambda: all(q.task.done() for q in together), "they wait for each other")
        assert [q.told for q in together] == [[(pb.OpenReply.OPENED, 0)]] * 4


async def test_who_came_first_is_first_in_the_queue_whoever_was_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with small() as swarm:
        first, second = await swarm.fill()
        opening = swarm.workers["w0"].opening
        really, came, go_on = opening._try_all, asyncio.Event(), asyncio.Event()

        async def early_ones_slowly(request: pb.OpenRequest, caller: Caller) -> int | None:
            if request.session == early.session:
                came.set()
                await go_on.wait()
            return await really(request, caller)

        monkeypatch.setattr(opening, "_try_all", early_ones_slowly)
        early = Queued(swarm.client, b"e" * 16)
        await until(came.is_set, "it does not come")
        late = Queued(swarm.client)
        await until(lambda: bool(late.told), "no place was told")
        go_on.set()
        await until(lambda: late.told[-1] == (pb.OpenReply.QUEUED, 2), "it was not told that another came before it")
        await swarm.client.release(first)
        await until(early.task.done, "who came first did not open")
        assert not late.task.done()
        await swarm.client.release(second)
        await until(late.task.done, "who came second did not open")


async def test_a_client_that_vanishes_from_the_queue_leaves_it() -> None:
    async with small() as swarm:
        first, _ = await swarm.fill()
        gone, waiting = Queued(swarm.client), Queued(swarm.client)
        await until(lambda: bool(gone.told and waiting.told), "no place was told")
        gone.task.cancel()
        await until(lambda: waiting.told[-1] == (pb.OpenReply.QUEUED, 1), "the one behind did not move up")
        await swarm.client.release(first)
        await until(waiting.task.done, "the one behind did not open")
        assert swarm.sessions() == [2, 2]


async def test_waiting_for_room_asks_now_and_then_and_not_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with small() as swarm:
        await swarm.fill()
        asked = 0
        opening = swarm.workers["w0"].opening
        really = opening._try_all

        async def counted(request: pb.OpenRequest, caller: Caller) -> int | None:
            nonlocal asked
            asked += 1
            return await really(request, caller)

        monkeypatch.setattr(opening, "_try_all", counted)
        waiting = Queued(swarm.client)
        await until(lambda: asked >= 2, "it never asked again")
        assert asked <= 3
        waiting.task.cancel()


async def test_a_session_that_comes_back_does_not_wait_behind_those_that_wait_for_its_pages() -> None:
    async with small() as swarm:
        first, _ = await swarm.fill()
        waiting = Queued(swarm.client)
        await until(lambda: bool(waiting.told), "no place was told")
        async with asyncio.timeout(60):
            assert await swarm.client.reopen(first, 64) == 0
        waiting.task.cancel()


async def test_two_sessions_that_each_want_the_others_pages_do_not_wait_for_ever() -> None:
    async with small() as swarm:
        sessions = [await swarm.client.open(32) for _ in range(4)]
        assert await swarm.client.ask(step(sessions[0], TEXT, 0, 20))
        growing = [Queued(swarm.client, session) for session in sessions[:3]]
        await until(lambda: sum(q.task.done() for q in growing) >= 1, "nobody got room, though three wait for four's pages")
        done = next(q for q in growing if q.task.done())
        assert done.told[-1][0] == pb.OpenReply.OPENED
        await swarm.client.release(done.session)
        await until(lambda: sum(q.task.done() for q in growing) >= 2, "nobody got the room that was given back")
        for queued in growing:
            queued.task.cancel()


async def test_a_lease_that_ran_out_gives_the_pages_back_and_the_session_is_a_gap() -> None:
    async with small() as swarm:
        session = await swarm.client.open(64)
        before = bits(*await swarm.client.ask(step(session, TEXT, 0, 10)))
        await swarm.client.reopen(session, 64, lease_s=0.2)
        await until(lambda: swarm.sessions() == [0, 0], "the lease did not end")
        assert swarm.used() == [0, 0]
        status = await swarm.client.fails(step(session, TEXT, 10, 11))
        assert (status.code, status.held) == (pb.GAP, 0)
        assert await swarm.client.reopen(session, 64) == 0
        assert bits(*await swarm.client.ask(step(session, TEXT, 0, 10))) == before


async def test_more_positions_than_the_context_are_refused_with_the_sum() -> None:
    async with small() as swarm:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await swarm.client.open(65)
        error = from_rpc(raised.value, "w0")
        assert isinstance(error, TooLong)
        assert "65 positions" in str(error)
        assert "64 a session" in str(error)
        assert swarm.sessions() == [0, 0]


async def test_a_session_opens_on_all_stages_or_on_none() -> None:
    async with small() as swarm:
        last = swarm.workers["w1"].epochs.current
        assert last is not None
        last.serving = False
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await swarm.client.open(64)
        assert isinstance(from_rpc(raised.value, "w0"), Moved)
        assert swarm.sessions() == [0, 0]
        assert swarm.used() == [0, 0]
        last.serving = True
        assert last.cache.reserve(b"somebody's", 128)
        waiting = Queued(swarm.client)
        await until(lambda: bool(waiting.told), "no place was told")
        assert swarm.sessions() == [0, 0]
        last.cache.release(b"somebody's")
        await until(waiting.task.done, "it did not open")
        assert swarm.sessions() == [1, 1]


async def test_a_worker_that_is_gone_is_named_with_its_stage_and_nothing_stays_reserved() -> None:
    plan = plan_of([4, 8], sessions=2, context=64)
    alone = {"w0"}
    async with workers_here(plan, only=alone) as workers:
        async with RawClientOfEntry(plan) as client:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await client.open(64)
        error = from_rpc(raised.value, "the entry")
        assert isinstance(error, Lost)
        assert str(error).startswith("worker w1 (stage 1, blocks 4-7) is gone (")
        assert workers["w0"].status().sessions == 0


class RawClientOfEntry(RawClient):
    """One that does not listen to the last Stage."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, Credentials())

    async def __aenter__(self) -> RawClientOfEntry:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def test_closing_while_a_step_is_computed_gives_the_pages_back_after_it() -> None:
    async with small() as swarm:
        session = await swarm.client.open(64)
        await swarm.client.send(step(session, TEXT, 0, 40))
        await swarm.client.release(session)
        await until(lambda: swarm.sessions() == [0, 0] and swarm.used() == [0, 0], "pages stayed")
        fresh = await swarm.client.open(64)
        assert bits(*await swarm.client.ask(step(fresh, TEXT, 0, 10)))
