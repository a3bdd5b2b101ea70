"""A Session that is over is told to the Workers until they know, whatever is under way while it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack

import pytest

pytest.importorskip("torch", reason="the Workers of these tests need it")

from plans import free_addresses, plan_of
from questions import GREEDY, answer, questions
from swarm_processes import InMemory, prepare, until, workers_here
from wider_plans import routes_plan

from swarm.client import farewell
from swarm.client.client import open_client
from swarm.client.route import Event, RouteStreams
from swarm.client.routes import Routes
from swarm.errors import Lost, Moved
from swarm.wire.credentials import Credentials
from swarm.worker.worker import Worker

STORY = questions("stories")[0]
TWO = ([("a0", 3), ("a1", 8)], [("b0", 5), ("b1", 8)])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "BACKOFF_S", (0.01,))


async def all_gone(workers: Iterable[Worker]) -> None:
    await until(lambda: not any(w.status().sessions or w.status().kv_used_bytes for w in workers), "the session stays")


async def test_a_close_that_meets_a_change_of_plan_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The streams are closed under it, as they are when a newer Plan is there."""
    plan = plan_of([4, 8])
    really, tried = RouteStreams.release, 0

    async def meets_a_change(streams: RouteStreams, session: bytes) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise Moved(plan.epoch + 1)
        await really(streams, session)

    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        talk = client.conversation()
        await answer(talk, STORY.prompt, 5)
        assert all(w.status().sessions for w in workers.values())
        monkeypatch.setattr(RouteStreams, "release", meets_a_change)
        await talk.close()
        await all_gone(workers.values())


async def test_a_close_is_told_to_the_entry_that_a_newer_plan_has(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = free_addresses(["a0", "a1", "b0", "b1"])
    before = routes_plan(TWO[0], addresses=addresses, spare=["b0", "b1"])
    after = routes_plan([("b0", 3), ("a1", 8)], addresses=addresses, spare=["a0", "b1"], epoch=2)
    monkeypatch.setattr(farewell, "CLOSE_S", 0.0)  # it goes on in the background
    async with workers_here(before, only={"a1", "b0", "b1"}) as rest:
        source = InMemory(before)
        async with open_client(source, Credentials()) as client, AsyncExitStack() as entry:
            await entry.enter_async_context(workers_here(before, only={"a0"}))
            talk = client.conversation()
            await answer(talk, STORY.prompt, 5)
            await entry.aclose()
            await talk.close()
            assert rest["a1"].status().sessions == 1
            await prepare({name: rest[name] for name in ("a1", "b0")}, after)
            for name in ("a1", "b0"):
                rest[name].commit(2)
            await source.switch(after)
            await all_gone(rest.values())


async def test_who_was_away_when_a_session_left_is_told_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = routes_plan(*TWO)
    really, away = Routes._release_at, True

    async def not_now(routes: Routes, session: bytes, name: str) -> bool:
        return False if away else await really(routes, session, name)

    monkeypatch.setattr(Routes, "_release_at", not_now)
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        talk = client.conversation()
        pieces = talk.generate(STORY.prompt, GREEDY, len(STORY.answer))
        for _ in range(10):
            await anext(pieces)
        lost = "a" if workers["a0"].status().sessions else "b"
        talk._session._events.put_nowait(Event(0, error=Lost("a test says so", f"{lost}1")))
        async for _ in pieces:
            pass
        assert talk.answer.tokens == STORY.answer
        assert workers[f"{lost}0"].status().sessions == 1
        away = False
        await until(lambda: not workers[f"{lost}0"].status().sessions, "it is still held where it was")
        await talk.close()
        await all_gone(workers.values())


async def test_who_was_to_be_told_when_a_session_was_opened_anew_in_vain_is_told_all_the_same() -> None:
    plan, told = plan_of([4, 8]), list[set[str]]()

    class Away:
        """Routes whose entry says nothing, while its Workers can be told one by one."""

        def forget(self, session: bytes) -> None: ...

        async def release(self, session: bytes, names: set[str]) -> set[str]:
            told.extend([set(names)] if names else [])
            return set()

        async def streams(self, route: int) -> RouteStreams:
            raise Lost("it is away")

    Away.plan = plan  # type: ignore[attr-defined]

    class Swarm:
        async def routes(self) -> Away:
            return Away()

        def later(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
            return asyncio.create_task(work)

    last_words = farewell.Farewell(Swarm(), bytes(16))  # type: ignore[arg-type]
    last_words.close(plan.routes[0])
    await last_words.settle()  # the next question, and then nothing of it: its client was stopped, say
    assert not told
    await last_words.told()
    await until(lambda: told == [{"w0", "w1"}], "nobody was told")
