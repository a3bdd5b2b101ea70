"""A client's two streams: what comes back finds its Session, and their end is heard by every Session that waits."""

from __future__ import annotations

import asyncio
import gc

import pytest

pytest.importorskip("torch", reason="the Workers of these tests need it")

import psutil
from plans import free_addresses, plan_of
from questions import GREEDY, answer, questions
from swarm_processes import InMemory, prepare, until, workers_here

from swarm.client import trouble
from swarm.client.client import open_client
from swarm.client.route import RouteStreams
from swarm.client.session import Session
from swarm.errors import Lost, WrongKey
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb

STORY = questions("stories")[0]


def streams_to(plan: Plan, key: str = "") -> RouteStreams:
    return RouteStreams(plan, 0, Credentials(key), b"c" * 16)


async def test_a_route_whose_last_worker_does_not_answer_is_lost_by_name() -> None:
    plan = plan_of([4, 8])
    async with workers_here(plan, only={"w0"}):
        streams = streams_to(plan)
        with pytest.raises(Lost, match="w1"):
            await streams.start()
        await streams.close()


async def test_a_wrong_key_is_said_when_the_streams_open() -> None:
    plan = plan_of([8])
    async with workers_here(plan, Credentials("right")):
        streams = streams_to(plan, "wrong")
        with pytest.raises(WrongKey):
            await streams.start()
        await streams.close()


async def test_a_route_that_breaks_tells_every_session_and_takes_no_more_steps() -> None:
    plan = plan_of([4, 8])
    async with workers_here(plan, only={"w0"}):
        async with workers_here(plan, only={"w1"}):
            streams = streams_to(plan)
            await streams.start()
            waiting = [streams.attach(bytes([i]) * 16) for i in range(3)]
        async with asyncio.timeout(60):
            events = [await events.get() for events in waiting]
        assert all(isinstance(event.error, Lost) and "w1" in str(event.error) for event in events)
        with pytest.raises(Lost, match="w1"):
            streams.send(pb.StepHeader(session=bytes(16)))
        with pytest.raises(Lost, match="w1"):
            await streams.open(bytes(16), 10, 10.0, [], lambda _: None)
        with pytest.raises(Lost, match="w1"):
            await streams.release(bytes(16))
        await streams.close()


async def test_a_session_that_waits_for_room_is_told_when_its_streams_are_closed_for_a_newer_plan() -> None:
    plan = plan_of([4, 8], sessions=1, context=64)
    async with workers_here(plan):
        streams = streams_to(plan)
        await streams.start()
        assert await streams.open(b"a" * 16, 64, 10.0, [], lambda _: None) == 0
        told: list[int] = []
        queued = asyncio.create_task(streams.open(b"b" * 16, 64, 10.0, [], told.append))
        await until(lambda: told == [1], "no place was told")
        await streams.close()
        with pytest.raises(Lost):
            await queued


async def test_asking_to_be_cancelled_while_waiting_for_room_is_being_cancelled() -> None:
    plan = plan_of([8], sessions=1, context=64)
    async with workers_here(plan):
        streams = streams_to(plan)
        await streams.start()
        await streams.open(b"a" * 16, 64, 10.0, [], lambda _: None)
        queued = asyncio.create_task(streams.open(b"b" * 16, 64, 10.0, [], lambda _: None))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        await streams.close()


async def test_a_conversation_that_slept_through_a_new_plan_can_be_closed_and_gives_its_pages_back() -> None:
    addresses = free_addresses(["w0", "w1"])
    first = plan_of([4, 8], addresses=addresses)
    second = plan_of([5, 8], addresses=addresses, epoch=2)
    async with workers_here(first) as workers:
        source = InMemory(first)
        async with open_client(source, Credentials()) as client:
            asleep, awake, later = client.conversation(), client.conversation(), client.conversation()
            for talk in (asleep, awake, later):
                await answer(talk, STORY.prompt, 5)
            await prepare(workers, second)
            for worker in workers.values():
                worker.commit(2)
            await source.switch(second)
            for worker in workers.values():
                await worker.drain(1, 5.0)
            assert await answer(awake, STORY.prompt, 9) == STORY.answer[:9]
            await asleep.close()
            assert await answer(later, STORY.prompt, 9) == STORY.answer[:9]
            for talk in (awake, later):
                await talk.close()
            assert [w.status().sessions for w in workers.values()] == [0, 0]


async def test_a_conversation_that_waits_for_room_survives_a_new_plan() -> None:
    addresses = free_addresses(["w0", "w1"])
    first = plan_of([4, 8], addresses=addresses, sessions=1, context=128)
    second = plan_of([5, 8], addresses=addresses, sessions=4, context=128, epoch=2)
    async with workers_here(first) as workers:
        source, told = InMemory(first), []
        async with open_client(source, Credentials(), told.append) as client:
            running, waiting = client.conversation(), client.conversation()
            pieces = running.generate(STORY.prompt, GREEDY, len(STORY.answer))
            await anext(pieces)
            asked = asyncio.create_task(answer(waiting, STORY.prompt, 20))
            await until(lambda: any("queue" in t for t in told), "it did not wait")
            await prepare(workers, second)
            for worker in workers.values():
                worker.commit(2)
            await source.switch(second)
            for worker in workers.values():
                await worker.drain(1, 5.0)
            async for _ in pieces:
                pass
            assert running.answer.tokens == STORY.answer
            async with asyncio.timeout(60):
                assert await asked == STORY.answer[:20]


async def test_gone_workers_do_not_keep_a_conversation_from_closing() -> None:
    plan = plan_of([4, 8])
    async with workers_here(plan):
        source = InMemory(plan)
        client_context = open_client(source, Credentials())
        client = await client_context.__aenter__()
        talk = client.conversation()
        await answer(talk, STORY.prompt, 3)
    async with asyncio.timeout(60):
        await talk.close()
        await client_context.__aexit__(None, None, None)


async def test_a_client_that_tries_again_and_again_keeps_no_socket_of_what_it_tried_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not Python collects what points at itself meanwhile."""
    monkeypatch.setattr(trouble, "BACKOFF_S", (0.01,))
    plan = plan_of([4, 8])
    tried, really = 0, RouteStreams.start

    async def counted(streams: RouteStreams) -> None:
        nonlocal tried
        tried += 1
        await really(streams)

    monkeypatch.setattr(RouteStreams, "start", counted)
    gc.collect()
    gc.disable()
    try:
        async with workers_here(plan, only={"w1"}), open_client(InMemory(plan), Credentials()) as client:
            session = Session(client)
            session.replace([1, 2, 3])
            asking = asyncio.create_task(session.traverse(0, lambda *_: pb.Ask()))
            await until(lambda: tried >= 2, "it does not try")
            before = psutil.Process().num_fds()
            await until(lambda: tried >= 12, "it does not try again")
            await until(lambda: psutil.Process().num_fds() < before + 10, "sockets stay")
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    finally:
        gc.enable()
