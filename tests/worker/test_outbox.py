"""Who does not read what it is told loses its stream, and no more memory than a bound is taken for it."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from plans import plan_of
from raw_client import raw, step
from swarm_processes import until, workers_here

from swarm.errors import Lost
from swarm.wire.status import from_rpc
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import outbox
from swarm.worker.outbox import Outbox


def row(size: int, serial: int = 1) -> pb.Answer:
    return pb.Answer(steps=[pb.StepAnswer(serial=serial, rows=[pb.Candidates(row=bytes(size))])])


async def test_messages_come_in_order_and_those_said_before_the_end_come_too() -> None:
    box = Outbox[pb.Answer]()
    for serial in range(1, 4):
        box.put(row(1, serial))
    box.end()
    box.put(row(1, 4))
    assert [answer.steps[0].serial async for answer in box] == [1, 2, 3]


async def test_what_is_read_makes_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "UNREAD_BYTES", 6000)
    box = Outbox[pb.Answer]()
    reading = aiter(box)
    for serial in range(1, 20):
        box.put(row(1000, serial))
        box.put(row(1000, serial))
        assert [(await anext(reading)).steps[0].serial for _ in range(2)] == [serial] * 2


async def test_what_piles_up_unread_ends_the_stream_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "UNREAD_BYTES", 100_000)
    ended = asyncio.Event()
    box = Outbox[pb.Answer](ended.set)
    box.put(row(60_000))
    assert not ended.is_set()
    box.put(row(60_000))
    assert ended.is_set()
    box.put(row(1))
    assert [answer async for answer in box] == []
    with pytest.raises(Lost, match="pile up unread, and its stream was closed"):
        box.check()


async def test_a_client_that_reads_no_reports_loses_its_stream_and_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of([8])
    async with workers_here(plan), raw(plan) as client:
        monkeypatch.setattr(outbox, "UNREAD_BYTES", 100_000)
        call = client.entry.Submit()
        nonsense = pb.StepHeader(session=b"x" * 16, serial=1)
        await call.write(pb.MicroBatch(epoch=9, steps=[nonsense] * 2000))
        came = 0
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with asyncio.timeout(60):
                async for _ in call:
                    came += 1
        assert isinstance(from_rpc(raised.value, "w0"), Lost)
        assert came < 2000
        assert await client.ask(step(await client.open(64), list(range(30, 40)), 0, 10))


async def test_a_client_that_reads_no_answers_is_cut_off_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of([8])
    async with workers_here(plan) as workers, raw(plan) as client:
        answers = workers["w0"].flow.answers
        async with asyncio.timeout(60):
            stream = answers.listen(b"lazy" * 4)
            await anext(stream)
            for _ in range(5000):
                answers.send(b"lazy" * 4, row(128 * 1024))
            with pytest.raises(Lost):
                await anext(stream)
        await until(lambda: client.id in answers._streams, "the other client was cut off, too")
