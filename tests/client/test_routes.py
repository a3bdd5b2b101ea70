"""Several Routes in one Plan: Sessions go where there is room, and go on elsewhere when a Route is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

pytest.importorskip("torch", reason="the Workers of these tests need it")

from plans import free_addresses
from questions import GREEDY, answer, ask_all, questions
from swarm_processes import InMemory, prepare, until, workers_here
from undisturbed import SLOW
from wider_plans import routes_plan

from swarm.client.client import open_client
from swarm.client.route import RouteStreams
from swarm.client.routes import Routes
from swarm.errors import Lost, Moved, TooLong
from swarm.plan import ExpertShard, Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import stage_servicer
from swarm.worker.callers import Caller
from swarm.worker.epoch import Epochs
from swarm.worker.worker import Worker

STORY, OTHER = questions("stories")[:2]
TWO = ([("a0", 3), ("a1", 8)], [("b0", 5), ("b1", 8)])
NAMES = ["a0", "a1", "b0", "b1"]


def sessions_at(workers: Mapping[str, Worker], names: Collection[str] = NAMES) -> list[int]:
    return [workers[name].status().sessions for name in names]


async def test_four_sessions_of_a_client_are_spread_two_and_two_and_say_what_one_route_says() -> None:
    plan = routes_plan(*TWO)
    asked = questions("eval")[:4]
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        talks = [client.conversation() for _ in asked]
        answers = await asyncio.gather(*(answer(t, q.prompt, len(q.answer)) for t, q in zip(talks, asked, strict=True)))
        assert answers == [q.answer for q in asked]
        assert sessions_at(workers) == [2, 2, 2, 2]
        for talk in talks:
            await talk.close()
        assert sessions_at(workers) == [0, 0, 0, 0]


async def test_each_route_has_room_for_its_share_and_takes_what_the_other_has_no_room_for() -> None:
    plan = routes_plan(*TWO, sessions=4, context=128)
    told: list[str] = []
    async with workers_here(plan) as workers:
        assert {w.epochs.current.cache.num_pages for w in workers.values() if w.epochs.current} == {2 * 128 // plan.page_positions}
        clients = [open_client(InMemory(plan), Credentials(), told.append) for _ in range(4)]
        opened = [await each.__aenter__() for each in clients]
        talks = [client.conversation() for client in opened]
        for talk in talks:  # one after the other, each with a client of its own that knows of no other
            await answer(talk, STORY.prompt, 128 - len(STORY.prompt))
        assert sessions_at(workers) == [2, 2, 2, 2]
        assert not [what for what in told if SLOW not in what]
        waiting = asyncio.create_task(answer(late := opened[0].conversation(), STORY.prompt, 5))
        await until(lambda: any("number 1" in each for each in told), "it was not told its place")
        await talks[3].close()
        async with asyncio.timeout(60):
            assert await waiting == STORY.answer[:5]
        for talk in (*talks, late):
            await talk.close()
        for each in clients:
            await each.__aexit__(None, None, None)
        assert sessions_at(workers) == [0, 0, 0, 0]


async def test_a_session_that_waited_on_both_routes_is_open_on_one_afterwards() -> None:
    plan = routes_plan(*TWO, sessions=2, context=64)
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        first, second, third = (client.conversation() for _ in range(3))
        for talk in (first, second):
            await answer(talk, STORY.prompt[:30], 34)
        waiting = asyncio.create_task(answer(third, STORY.prompt[:30], 34))
        await until(lambda: [len(workers[n].opening.turns) for n in ("a0", "b0")] == [1, 1], "it does not wait on both")
        await asyncio.gather(first.close(), second.close())
        await waiting
        await until(lambda: sorted(sessions_at(workers, ["a0", "b0"])) == [0, 1], "it is open on both")
        await third.close()
        assert sessions_at(workers) == [0, 0, 0, 0]


@pytest.mark.parametrize("gone", ["a0", "a1"], ids=["its entry", "its last"])
async def test_a_route_that_is_away_costs_nobody_an_answer(gone: str) -> None:
    plan = routes_plan(*TWO)
    source = InMemory(plan)
    async with workers_here(plan, only={*NAMES} - {gone}) as workers, open_client(source, Credentials()) as client:
        talks = [client.conversation() for _ in range(4)]
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(answer(talk, STORY.prompt, 20) for talk in talks))
        assert answers == [STORY.answer[:20]] * 4
        assert source.reported
        assert all(epoch == 1 and gone in message for epoch, _, message in source.reported)
        for talk in talks:
            await talk.close()
        assert sessions_at(workers, {*NAMES} - {gone}) == [0, 0, 0]


async def test_a_session_whose_route_is_lost_goes_on_over_the_other_at_once_and_is_forgotten_where_it_was() -> None:
    plan = routes_plan(*TWO)
    source, told = InMemory(plan), []
    async with AsyncExitStack() as stack:
        lasts = {name: await stack.enter_async_context(AsyncExitStack()) for name in ("a1", "b1")}
        for name, last in lasts.items():
            await last.enter_async_context(workers_here(plan, only={name}))
        workers = await stack.enter_async_context(workers_here(plan, only={"a0", "b0"}))
        client = await stack.enter_async_context(open_client(source, Credentials(), told.append))
        talk = client.conversation()
        pieces = talk.generate(STORY.prompt, GREEDY, len(STORY.answer))
        for _ in range(10):
            await anext(pieces)
        lost, other = ("a", "b") if sessions_at(workers, ["a0", "b0"]) == [1, 0] else ("b", "a")
        await lasts[f"{lost}1"].aclose()
        async with asyncio.timeout(60):
            async for _ in pieces:
                pass
        assert talk.answer.tokens == STORY.answer
        assert [told_of for told_of in told if "another route" in told_of]
        assert f"{lost}1" in source.reported[0][2]
        await until(lambda: sessions_at(workers, [f"{lost}0", f"{other}0"]) == [0, 1], "it is still held where it was")
        await talk.close()


async def test_with_every_route_lost_the_answer_waits_and_names_the_worker() -> None:
    plan = routes_plan(*TWO)
    source = InMemory(plan)
    source.patience_s = 0.5
    async with workers_here(plan, only={"a0", "b0"}), open_client(source, Credentials()) as client:
        async with asyncio.timeout(60):
            with pytest.raises(Lost, match=r"[ab]1"):
                await answer(client.conversation(), STORY.prompt, 5)


async def test_what_no_route_could_ever_hold_is_refused_at_once() -> None:
    plan = routes_plan(*TWO, context=64)
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        with pytest.raises(TooLong):
            await answer(client.conversation(), STORY.prompt * 10, 5)


async def test_who_is_cancelled_in_the_moment_of_opening_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = routes_plan(*TWO)
    really = RouteStreams.open

    async def cancelled(streams: RouteStreams, *rest: Any) -> int:
        held = await really(streams, *rest)
        assert sum(sessions_at(workers)) == 2
        asking.cancel()
        return held

    monkeypatch.setattr(RouteStreams, "open", cancelled)
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        talk = client.conversation()
        asking = asyncio.create_task(answer(talk, STORY.prompt, 5))
        with pytest.raises(asyncio.CancelledError):
            await asking
        await talk.close()
        assert sessions_at(workers) == [0, 0, 0, 0]
        monkeypatch.undo()
        assert await answer(talk, STORY.prompt, 5) == STORY.answer[:5]
        await talk.close()


async def test_a_session_that_waits_for_room_takes_a_lost_route_that_is_back() -> None:
    plan = routes_plan(*TWO, sessions=2, context=64)
    async with workers_here(plan, only={"b0", "b1"}) as there, open_client(InMemory(plan), Credentials()) as client:
        first, second = client.conversation(), client.conversation()
        await answer(first, STORY.prompt[:30], 34)
        waiting = asyncio.create_task(answer(second, STORY.prompt[:30], 34))
        await until(lambda: len(there["b0"].opening.turns) == 1, "it does not wait")
        async with workers_here(plan, only={"a0", "a1"}) as back:
            async with asyncio.timeout(60):
                await waiting
            assert sessions_at(back, ["a0", "a1"]) == [1, 1]
            assert sessions_at(there, ["b0", "b1"]) == [1, 1]
            await second.close()
        await first.close()


async def test_a_session_that_waits_for_room_takes_a_lost_route_whose_workers_were_there_before_their_plan() -> None:
    plan, refused = routes_plan(*TWO, sessions=2, context=64), asyncio.Event()
    async with workers_here(plan, only={"b0", "b1"}) as there, open_client(InMemory(plan), Credentials()) as client:
        first, second = client.conversation(), client.conversation()
        await answer(first, STORY.prompt[:30], 34)
        waiting = asyncio.create_task(answer(second, STORY.prompt[:30], 34))
        await until(lambda: len(there["b0"].opening.turns) == 1, "it does not wait")
        async with workers_here(plan, commit=False, only={"a0", "a1"}) as back:
            moved = back["a0"].epochs.moved

            def told() -> Moved:
                refused.set()
                return moved()

            back["a0"].epochs.moved = told  # type: ignore[method-assign]
            async with asyncio.timeout(60):
                await refused.wait()
                await prepare(back, plan)
                for worker in back.values():
                    worker.commit(plan.epoch)
                await waiting
            assert sessions_at(back, ["a0", "a1"]) == [1, 1]
            await second.close()
        await first.close()


async def test_a_chat_goes_on_while_a_route_is_added_and_while_one_is_taken_away() -> None:
    addresses = free_addresses(NAMES)
    one = routes_plan(TWO[0], addresses=addresses, spare=["b0", "b1"])
    two = routes_plan(*TWO, addresses=addresses, epoch=2)
    turned = routes_plan(TWO[1], addresses=addresses, spare=["a0", "a1"], epoch=3)
    async with workers_here(one) as workers:
        source = InMemory(one)
        async with open_client(source, Credentials()) as client:
            talks = [client.conversation() for _ in range(4)]
            parts = [talk.generate(q.prompt, GREEDY, 60) for talk, q in zip(talks, [STORY, OTHER] * 2, strict=True)]
            for epoch, plan in enumerate((two, turned), 1):
                for pieces in parts:
                    for _ in range(15):
                        await anext(pieces)
                await change(workers, source, epoch, plan)
            for talk, pieces, q in zip(talks, parts, [STORY, OTHER] * 2, strict=True):
                async for _ in pieces:
                    pass
                assert talk.answer.tokens == q.answer[:60]
            assert sessions_at(workers) == [0, 0, 4, 4]
            for talk in talks:
                await talk.close()


async def change(workers: Mapping[str, Worker], source: InMemory, old: int, plan: Plan) -> None:
    """Prepare, Commit, tell the client, drain the one before."""
    await prepare(workers, plan)
    for worker in workers.values():
        worker.commit(plan.epoch)
    await source.switch(plan)
    await asyncio.gather(*(worker.drain(old, 5.0) for worker in workers.values()))


async def test_shards_and_copies_of_each_route_are_asked_by_their_own_route_only() -> None:
    shards = [ExpertShard("x", b, (1, 3), 0) for b in range(8)]
    shards += [ExpertShard("y", b, (0, 1, 2, 4), 1, copy=True) for b in range(5, 8)]
    plan = routes_plan(*TWO, spare=["x", "y"], shards=shards)
    asked = questions("eval")[:8]
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        assert await ask_all(client, asked, 4) == [q.answer for q in asked]
        remotes = {name: [r._worker for r in w.epochs.current.remotes] for name, w in workers.items() if w.epochs.current}
        assert remotes == {"a0": ["x"], "a1": ["x"], "b0": [], "b1": ["y"], "x": [], "y": []}
        assert all(workers[name].status().busy_s > 0 for name in ("x", "y"))


@pytest.mark.parametrize("turns", range(10))
async def test_a_route_that_is_connected_while_its_plan_ends_is_closed_and_not_handed_out(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []

    class Streams:
        broken = None

        def __init__(self, plan: Plan, route: int, credentials: Credentials, client: bytes) -> None:
            self.route = route

        async def start(self) -> None:
            await asyncio.sleep(0)

        async def close(self, why: object = None) -> None:
            await asyncio.sleep(0.01)
            closed.append(self.route)

    monkeypatch.setattr("swarm.client.routes.RouteStreams", Streams)
    routes = Routes(routes_plan(*TWO), Credentials(), b"c" * 16)
    await routes.streams(0)
    connecting = asyncio.create_task(routes.streams(1))
    for _ in range(turns):
        await asyncio.sleep(0)
    before = connecting.done()
    await routes.close(Moved(2))
    if not before:
        with pytest.raises(Moved):
            await connecting
    assert sorted(set(closed)) == ([0, 1] if turns else [0])


async def test_a_session_that_a_route_could_not_open_after_all_is_left_open_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The entry has its first pages from another Session with the same beginning; a Stage behind it is gone."""
    really, long = stage_servicer.reserve_here, (STORY.prompt + STORY.answer[:-1]) * 3

    def gone(epochs: Epochs, request: pb.OpenRequest, name: str, *owner: Caller | None) -> pb.ReserveReply:
        if name == "a1":
            raise Lost("the connection was lost", name)
        return really(epochs, request, name, *owner)

    async with workers_here(plan := routes_plan(*TWO)) as workers:
        async with open_client(InMemory(plan), Credentials()) as other:
            monkeypatch.setattr(other, "_id", bytes(16))  # it begins with the first Route
            talk = other.conversation()
            said = await answer(talk, long, 5)
            assert sessions_at(workers) == [1, 1, 0, 0]
            await talk.close()
        monkeypatch.setattr(stage_servicer, "reserve_here", gone)
        async with open_client(InMemory(plan), Credentials()) as client:
            monkeypatch.setattr(client, "_id", bytes(16))
            talk = client.conversation()
            assert await answer(talk, long, 5) == said
            await until(lambda: sessions_at(workers) == [0, 0, 1, 1], "it stays open where it found its first pages")
            await talk.close()


async def test_a_session_that_goes_on_over_another_route_is_heard_of_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with workers_here(plan := routes_plan(*TWO)) as workers, open_client(InMemory(plan), Credentials()) as client:
        talk = client.conversation()
        await answer(talk, STORY.prompt, 5)
        first = talk._session._seat.streams
        assert first is not None and list(first._sessions) == [talk._session.id]
        entry, last = plan.routes[first.route].stages
        hops, answers = workers[entry.worker].flow.hops, workers[last.worker].flow.answers
        sent = hops.send

        def breaks(*what: Any) -> None:
            sent(*what)
            asyncio.get_running_loop().call_soon(hops._broken, plan.worker(last.worker).address, "it was cut")

        monkeypatch.setattr(hops, "send", breaks)
        monkeypatch.setattr(answers, "send", lambda *_: None)
        async with asyncio.timeout(60):
            await answer(talk, (7,), 3)
        second = talk._session._seat.streams
        assert second is not None and second.route != first.route and not first.broken
        assert not first._sessions and list(second._sessions) == [talk._session.id]
        await talk.close()
