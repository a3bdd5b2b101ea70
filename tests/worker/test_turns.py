"""After a change of Plan, Sessions that go on are opened before new ones; who lies about it gains little."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from plans import plan_of
from raw_client import RawClient, raw
from swarm_processes import OPEN, InMemory, prepare, until, workers_here

from swarm.client import session
from swarm.client.client import open_client
from swarm.plan import Plan
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import turns
from swarm.worker.callers import Caller
from swarm.worker.epoch import Epoch
from swarm.worker.turns import Turns

PLAN = replace(plan_of([4, 8], sessions=2, context=64), epoch=2, follows=1)
ANYBODY = Caller("w0")


@asynccontextmanager
async def changed(plan: Plan = PLAN) -> AsyncIterator[tuple[RawClient, Epoch]]:
    """Two Stages with room for two Sessions, under an epoch that is not the first one."""
    async with workers_here(plan) as workers, raw(plan) as client:
        epoch = workers["w0"].epochs.current
        assert epoch
        yield client, epoch


class Asking:
    """An Open call, and what it was told."""

    def __init__(self, client: RawClient, open_in: int) -> None:
        self.told: list[tuple[int, int]] = []
        self.task = asyncio.create_task(self._open(client, client.opening(os.urandom(16), 64, open_in=open_in)))

    async def _open(self, client: RawClient, request: pb.OpenRequest) -> None:
        async for reply in client.entry.Open(request):
            self.told.append((reply.state, reply.place))


async def test_after_a_change_of_plan_sessions_that_go_on_are_opened_before_new_ones_that_came_earlier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "HOLD_S", 0.0)
    async with changed() as (client, _):
        first, second = await client.open(64), await client.open(64)
        new = Asking(client, open_in=0)
        await until(lambda: new.told == [(pb.OpenReply.QUEUED, 1)], "no place was told")
        going_on = [Asking(client, open_in=1)]
        await until(lambda: new.told[-1] == (pb.OpenReply.QUEUED, 2), "the one that goes on is not before it")
        going_on.append(Asking(client, open_in=1))
        await until(lambda: new.told[-1] == (pb.OpenReply.QUEUED, 3), "the other one that goes on is not before it")
        for session, asking in zip((first, second), going_on, strict=True):
            await client.release(session)
            await until(asking.task.done, "who goes on did not open")
        await until(lambda: new.told[-1] == (pb.OpenReply.QUEUED, 1), "it was not told that it is next")
        assert not new.task.done()
        new.task.cancel()


async def test_new_sessions_leave_the_room_for_a_moment_to_those_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "HOLD_S", 600.0)
    async with changed() as (client, _):
        new = [Asking(client, open_in=0) for _ in range(2)]
        going_on = [Asking(client, open_in=1) for _ in range(2)]
        await until(lambda: all(asking.task.done() for asking in going_on), "who goes on did not open")
        assert [asking.told for asking in going_on] == [[(pb.OpenReply.OPENED, 0)]] * 2
        await until(lambda: all(asking.told for asking in new), "nobody was told why")
        assert [asking.told for asking in new] == [[(pb.OpenReply.HELD_BACK, 0)]] * 2
        for asking in new:
            asking.task.cancel()


async def test_who_waits_longer_for_those_that_go_on_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "HOLD_S", 600.0)
    monkeypatch.setattr(session, "TELL_S", 0.2)
    told: list[str] = []
    async with changed(), open_client(InMemory(PLAN), OPEN, told.append) as client:
        asking = asyncio.create_task(client.score([1, 2, 3]))
        await until(lambda: told, "nothing was told")
        assert told == ["the swarm has changed its plan a moment ago: chats that were under way come first; the answer begins then"]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_new_sessions_are_opened_when_that_moment_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "HOLD_S", 3.0)
    async with changed() as (client, epoch):
        epoch.since = time.monotonic()
        new = Asking(client, open_in=0)
        await until(new.task.done, "it did not open")
        assert time.monotonic() >= epoch.since + 3.0 and new.told == [(pb.OpenReply.HELD_BACK, 0), (pb.OpenReply.OPENED, 0)]


def test_who_has_many_sessions_lets_those_in_first_who_have_fewer() -> None:
    queue, greedy, modest = Turns("w0"), Caller("w0"), Caller("w0")
    waiting = [queue.come(greedy, has, 0, None, 0.0) for has in range(4)]
    for turn in waiting:
        queue.enter(turn)
    late = [queue.come(modest, has, 0, None, 0.0) for has in range(2)]
    for turn in late:
        queue.enter(turn)
    assert [queue.place(turn) for turn in waiting] == [0, 2, 4, 5] and [queue.place(turn) for turn in late] == [1, 3]
    for turn in (waiting[0], late[0], waiting[1]):
        queue.leave(turn)
        queue.served(turn)
    queue.enter(other := queue.come(Caller("w0"), 0, 0, None, 0.0))
    queue.enter(again := queue.come(modest, 0, 0, None, 0.0))
    assert [queue.place(turn) for turn in (late[1], other, again, waiting[2])] == [0, 1, 2, 3]


async def test_who_says_that_it_goes_on_gains_a_place_for_a_while_only_and_no_more_places_than_the_plan_has_sessions() -> None:
    async with changed() as (_, epoch):
        queue = Turns("w0")
        assert queue.come(ANYBODY, 0, 2, epoch, epoch.since).new and queue.come(ANYBODY, 0, 3, epoch, epoch.since).new, (
            "no earlier epoch"
        )
        assert queue.come(ANYBODY, 0, 1, epoch, epoch.since + turns.AFTER_S).new
        for _ in range(PLAN.sessions):
            queue.enter(turn := queue.come(ANYBODY, 0, 1, epoch, epoch.since))
            assert not turn.new
        assert queue.come(ANYBODY, 0, 1, epoch, epoch.since).new


async def test_nobody_is_held_back_where_nothing_was_open_before_nor_where_those_that_go_on_are_open_already() -> None:
    first = replace(PLAN, epoch=1_700_000_000, follows=0)
    later = replace(first, epoch=1_700_000_001, follows=first.epoch)
    async with workers_here(first) as workers:
        await prepare(workers, later)
        workers["w0"].commit(later.epoch)
        for number in (first.epoch, later.epoch):
            epoch = workers["w0"].epochs.get(number)
            assert epoch and Turns("w0").come(ANYBODY, 0, 0, epoch, epoch.since).earliest == 0.0
