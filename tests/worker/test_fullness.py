"""More than there is room for: bounded, told in words, and given back; whoever chats already notices nothing."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio
import psutil
import pytest
from plans import plan_of
from raw_client import RawClient, raw, step
from swarm_processes import until, workers_here
from undisturbed import chatting

from swarm.errors import Full, TooLong
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import callers, sessions
from swarm.worker.callers import Callers
from swarm.worker.worker import Worker

TEXT = [(11 * i) % 2000 + 50 for i in range(200)]
THOUSAND = 1000


def own_plan(sessions: int = 4, context: int = 512) -> Plan:
    return plan_of([4, 8], sessions=sessions, context=context)


@asynccontextmanager
async def swarm(plan: Plan, key: str = "") -> AsyncIterator[dict[str, Worker]]:
    """Two Workers; when all clients are gone, nothing of them is left on either (but in the frames of the last refusal)."""
    async with workers_here(plan, Credentials(key)) as workers:
        yield workers
        await until(lambda: not any(w.status().sessions or w.status().kv_used_bytes for w in workers.values()), "pages stay")
        for worker in workers.values():
            await until(lambda worker=worker: gc.collect() >= 0 and len(worker.callers) <= 1, "clients stay known")  # type: ignore[misc]
            assert not worker.opening.turns and not len(worker.entry._queue)
            await until(lambda worker=worker: not worker.flow.answers._streams, "streams stay")  # type: ignore[misc]


async def first_word(client: RawClient, call: grpc.aio.UnaryStreamCall[pb.OpenRequest, pb.OpenReply]) -> str:
    """What an Open is told first: that it is opened, or queued, or why not."""
    try:
        async for reply in call:
            return pb.OpenReply.State.Name(reply.state)
    except grpc.aio.AioRpcError as error:
        refused = from_rpc(error, "w0")
        return str(refused) if isinstance(refused, Full) else repr(refused)
    return "nothing"


async def test_a_thousand_sessions_opened_at_once_are_opened_queued_or_refused_in_words_and_leave_nothing() -> None:
    plan = own_plan()
    async with swarm(plan) as workers, chatting(plan), raw(plan) as client:
        names = [number.to_bytes(16, "big") for number in range(THOUSAND)]
        calls = [client.entry.Open(client.opening(name, 32)) for name in names]
        said = Counter(await asyncio.gather(*(first_word(client, call) for call in calls)))
        assert said.pop("OPENED") + said.pop("QUEUED") == callers.SESSIONS
        assert said == {"w0: this client has 256 sessions here and may have no more: close some": THOUSAND - callers.SESSIONS}
        for call in calls:
            call.cancel()
        await until(lambda: len(workers["w0"].opening.turns) <= 1, "who went away still waits")
        for name in names:
            await client.release(name)


async def test_one_clients_thousand_sessions_leave_room_in_the_queue_for_another() -> None:
    plan = own_plan(sessions=1, context=32)
    async with swarm(plan) as workers, raw(plan) as greedy, raw(plan) as modest:
        first = await greedy.open(32)
        waiting = [asyncio.create_task(outcome_of_all(greedy, number)) for number in range(callers.SESSIONS + 50)]
        await until(lambda: sum(t.done() for t in waiting) == 51, "the ones too many are not refused")
        assert len(workers["w0"].opening.turns) == callers.SESSIONS - 1
        late = asyncio.create_task(modest.open(32))
        await until(lambda: len(workers["w0"].opening.turns) == callers.SESSIONS, "another client does not wait")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await greedy.release(first)
        await modest.release(await late)


async def outcome_of_all(client: RawClient, number: int) -> None:
    """Wait for room, however long that takes; returns where it is refused."""
    try:
        async for _ in client.entry.Open(client.opening(number.to_bytes(16, "big"), 32)):
            pass
    except grpc.aio.AioRpcError as error:
        assert isinstance(from_rpc(error, "w0"), Full)


async def test_a_prompt_that_is_too_long_is_told_the_sum_and_takes_nothing() -> None:
    plan = own_plan()
    async with swarm(plan) as workers, raw(plan) as client:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.open(513)
        told = from_rpc(raised.value, "w0")
        assert isinstance(told, TooLong) and "513 positions were asked for, the swarm has 512" in str(told)
        assert [w.status().kv_used_bytes for w in workers.values()] == [0, 0]


async def test_a_client_that_vanishes_mid_answer_leaves_its_pages_on_all_stages_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ABANDONED_S", 0.2)
    plan = own_plan()
    async with swarm(plan) as workers, chatting(plan):
        gone = RawClient(plan, Credentials())
        await gone.start()
        session = await gone.open(256, lease_s=3600.0)
        await gone.ask(step(session, TEXT, 0, 20))
        await gone.send(step(session, TEXT, 20, 100))
        await gone.close()  # it closed nothing that it had opened
        await until(lambda: not any(session in p.table._sessions for w in workers.values() for p in w.epochs.pools()), "it stays")


async def test_a_client_that_is_there_and_says_nothing_keeps_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ABANDONED_S", 0.0)
    plan = own_plan()
    async with swarm(plan) as workers, raw(plan) as client, raw(plan) as other:
        session, others = await client.open(64), await other.open(64)
        before = workers["w0"].status().sessions
        await other.close()
        await until(lambda: workers["w0"].status().sessions == before - 1, "who is gone keeps its session")
        assert await client.ask(step(session, TEXT, 0, 10))
        assert others not in workers["w0"].epochs.pools()[0].table._sessions
        await client.release(session)


async def test_a_flood_of_steps_is_refused_beyond_the_clients_share_and_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "WAITING_ROWS", 1000)
    plan = own_plan()
    async with swarm(plan), chatting(plan), raw(plan) as flooding:
        opened = [await flooding.open(512) for _ in range(2)]
        steps = [
            step(session, TEXT, at, at + 32, ask=pb.Ask()) for at in range(100, 168) for session in opened
        ]  # nobody holds what is before
        await flooding.send(*steps)
        await until(lambda: len(flooding.came) >= len(steps), "some are not answered")
        told = Counter(pb.Code.Name(status.code) for status in flooding.came if isinstance(status, pb.StepStatus))
        assert told["FULL"] and told["GAP"] and set(told) == {"FULL", "GAP"}
        full = next(s for s in flooding.came if isinstance(s, pb.StepStatus) and s.code == pb.FULL)
        assert "wait for answers before sending more" in full.message or "positions" in full.message
        for session in opened:
            await flooding.release(session)


async def test_steps_of_sessions_that_nobody_opened_never_wait() -> None:
    plan = own_plan()
    async with swarm(plan) as workers, raw(plan) as client:
        steps = [step(number.to_bytes(16, "big"), TEXT, 0, 32) for number in range(2000)]
        await client.send(*steps)
        await until(lambda: len(client.came) == 2000, "some are not answered")
        assert {status.code for status in client.came if isinstance(status, pb.StepStatus)} == {pb.GAP}
        assert workers["w0"].flow.started == 0


async def test_a_client_has_so_many_streams_and_is_told_when_it_wants_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "STREAMS", 4)
    plan = own_plan()
    async with swarm(plan), raw(plan) as client:
        more = [client.entry.Submit() for _ in range(4)]
        await until(lambda: any(call.done() for call in more), "nobody was refused")
        (refused,) = [call for call in more if call.done()]
        assert await refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "this client has 4 streams here and may have no more" in str(await refused.details())
        for call in more:
            call.cancel()


async def test_a_client_is_its_certificate_and_without_a_key_its_connection() -> None:
    plan = own_plan()
    async with workers_here(plan, Credentials("k")) as workers, AsyncExitStack() as stack:
        one = Credentials("k", "one")
        for who in (one, one, Credentials("k", "two")):
            await stack.enter_async_context(raw(plan, who))
        await until(lambda: sorted(c.streams for c in known(workers["w0"].callers)) == [1, 2], "they are told apart wrongly")
    async with workers_here(plan) as workers, raw(plan), raw(plan):
        await until(lambda: [c.streams for c in known(workers["w0"].callers)] == [1, 1], "they are told apart wrongly")


def known(found: Callers) -> list[callers.Caller]:
    return list(found._known.values())


async def test_no_memory_stays_of_a_thousand_clients_that_came_and_went() -> None:
    plan = own_plan()
    async with swarm(plan) as workers:
        process, threads = psutil.Process(), 0
        for number in range(60):
            async with raw(plan) as client:
                session = await client.open(64)
                await client.ask(step(session, TEXT, 0, 10))
                await client.release(session)
            if number == 20:
                gc.collect()
                files, threads = process.num_fds(), process.num_threads()

        def closed() -> bool:
            gc.collect()  # gRPC closes a socket when the last of its calls is collected
            return process.num_fds() <= files + 8

        await until(closed, "sockets stay")
        assert process.num_threads() <= threads + 4
        assert not workers["w0"].status().sessions


async def test_another_client_gets_the_next_room_whoever_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CROWDED_S", 600.0)
    plan = own_plan(sessions=1, context=32)
    async with swarm(plan) as workers, raw(plan) as greedy, raw(plan) as modest:
        first = await greedy.open(32)
        waiting = [asyncio.create_task(outcome_of_all(greedy, number)) for number in range(20)]
        await until(lambda: len(workers["w0"].opening.turns) == 20, "they do not wait")
        late = asyncio.create_task(modest.open(32))
        await until(lambda: len(workers["w0"].opening.turns) == 21, "another client does not wait")
        await greedy.release(first)
        await modest.release(await late)
        assert sum(task.done() for task in waiting) <= 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_is_gone_with_more_than_its_share_makes_room_soon_for_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ABANDONED_S", 600.0)
    monkeypatch.setattr(sessions, "CROWDED_S", 0.2)
    plan = own_plan(sessions=4, context=32)
    async with swarm(plan) as workers, raw(plan) as client:
        gone = RawClient(plan, Credentials())
        await gone.start()
        kept = [await gone.open(32, lease_s=3600.0) for _ in range(4)]
        await gone.close()
        session = await client.open(32)
        table = workers["w0"].epochs.pools()[0].table
        await until(lambda: [table.is_open(name) for name in kept] == [False, False, True, True], "not just its share is left")
        await client.release(session)
        for name in kept[2:]:
            await client.release(name)
