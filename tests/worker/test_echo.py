"""The way between two Workers, measured: what it says of a slow one, of a silent one, and that nobody is flooded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from plans import free_addresses, plan_of
from swarm_processes import OPEN, workers_here

from swarm.errors import Full, Refused, SwarmError, Unreachable, WrongKey
from swarm.plan import Plan
from swarm.wire import near
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub
from swarm.worker.echo import FRAME_BYTES, HIDDEN_BYTES, STREAMS, Echo, Echoing, _stream_beside, measure_link

DELAY_S = 0.01
SEVERAL = 4
"""Measurements, of which the best says what the way can do: a machine that others use stands still at times."""
LATE_S = 0.1
"""More than a round trip takes on a machine that others use."""


@asynccontextmanager
async def two_workers() -> AsyncIterator[tuple[Plan, WorkerServiceStub]]:
    plan = plan_of([4, 8])
    async with workers_here(plan, commit=False), OPEN.channel(plan.workers[0].address) as channel:
        yield plan, WorkerServiceStub(channel)


@asynccontextmanager
async def relay(target: str, delay_s: float) -> AsyncIterator[str]:
    """The address of a relay to `target` whose bytes arrive so much later, each way."""
    host, _, port = target.rpartition(":")
    moving: set[asyncio.Task[None]] = set()

    async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, waiting = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

        async def write() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(due - loop.time())
                writer.write(data)

        writing = loop.create_task(write())
        try:
            while data := await reader.read(1 << 16):
                waiting.put_nowait((loop.time() + delay_s, data))
        finally:
            writing.cancel()
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        for ways in ((reader, back), (there, writer)):
            moving.add(asyncio.create_task(move(*ways)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in moving:
            task.cancel()
        await asyncio.gather(*moving, return_exceptions=True)


async def test_the_way_to_another_worker_has_a_round_trip_and_a_bandwidth() -> None:
    async with two_workers() as (plan, stub):
        replies = [await stub.MeasureLink(pb.LinkRequest(address=plan.workers[1].address, budget_s=0.5)) for _ in range(SEVERAL)]
        assert 1e-5 < min(reply.rtt_s for reply in replies) < 0.1
        assert max(reply.bytes_per_s for reply in replies) > 10e6
        assert min(reply.took_s for reply in replies) < 2


async def test_a_way_that_takes_longer_measures_longer_by_as_much() -> None:
    async with two_workers() as (plan, stub), relay(plan.workers[1].address, DELAY_S) as detour:
        straight, around = [
            min([(await stub.MeasureLink(pb.LinkRequest(address=address, budget_s=0.5))).rtt_s for _ in range(SEVERAL)])
            for address in (plan.workers[1].address, detour)
        ]
        assert 2 * DELAY_S * 0.9 < around - straight < 2 * DELAY_S + 0.02


async def test_beside_each_other_the_way_of_hops_is_measured_and_the_one_through_grpc_that_clients_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    was, come = Echoing.take, list[int]()

    def late(self: Echoing, frame: pb.EchoFrame) -> None:
        come.append(len(frame.data))
        asyncio.get_running_loop().call_later(LATE_S, was, self, frame)

    monkeypatch.setattr(Echoing, "take", late)
    async with two_workers() as (plan, stub):
        address = plan.workers[1].address
        reply = await stub.MeasureLink(pb.LinkRequest(address=address, budget_s=0.5, beside="w1"))
        assert reply.rtt_s >= LATE_S and reply.bytes_per_s > 1e5
        assert 1e-5 < reply.calls_rtt_s < LATE_S
        come.clear()
        for name in ("", "w9"):
            through_grpc = await stub.MeasureLink(pb.LinkRequest(address=address, budget_s=0.2, beside=name))
            assert 1e-5 < through_grpc.rtt_s < LATE_S and not through_grpc.calls_rtt_s
        assert not come


async def test_a_worker_that_ends_the_stream_beside_it_is_told_of_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.worker.echo.FRAME_BYTES", HIDDEN_BYTES - 1)
    async with two_workers() as (plan, _):
        port = int(plan.workers[1].address.rpartition(":")[2])
        path = near.streams_of("w1", port)
        assert path is not None
        async with _stream_beside(path, "here", "there", 1.0) as stream:
            assert await stream.seconds(64, 64) > 0
            with pytest.raises(SwarmError, match=f"may carry {HIDDEN_BYTES - 1} bytes"):
                await stream.seconds(HIDDEN_BYTES)
            with pytest.raises(SwarmError, match="may carry"):
                await stream.seconds(64)


async def test_a_socket_beside_it_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("swarm.worker.echo.CONNECT_S", 0.2)
    silent = await asyncio.start_unix_server(lambda _, __: None, str(tmp_path / "s"))
    with pytest.raises(Unreachable, match=r"here.*there.*no answer"):
        async with _stream_beside(tmp_path / "s", "here", "there", 0.1) as stream:
            await stream.seconds(64)
    silent.close()
    with pytest.raises(Unreachable, match=r"here.*there"):
        async with _stream_beside(tmp_path / "nobody", "here", "there", 0.1):
            pass


async def test_a_worker_that_is_not_there_is_named_with_the_one_that_asked() -> None:
    nobody = free_addresses(["x"])["x"]
    async with two_workers() as (plan, stub):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.MeasureLink(pb.LinkRequest(address=nobody, budget_s=0.2))
        told = from_rpc(raised.value, "w0")
        assert isinstance(told, Unreachable)
        assert plan.workers[0].address in str(told)
        assert nobody in str(told)


async def test_a_worker_that_accepts_and_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.worker.echo.CONNECT_S", 0.2)
    silent = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
    address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    with pytest.raises(Unreachable, match=f"here.*{address}"):
        await measure_link(OPEN, "here", address, 0.2)
    silent.close()


async def test_the_swarms_key_is_needed_and_given() -> None:
    plan = plan_of([4, 8])
    async with workers_here(plan, Credentials("right"), commit=False):
        assert (await measure_link(Credentials("right"), "here", plan.workers[1].address, 0.2)).rtt_s > 0
        with pytest.raises(WrongKey):
            await measure_link(Credentials("wrong"), "here", plan.workers[1].address, 0.2)


@pytest.mark.parametrize(
    "frame", [pb.EchoFrame(data=bytes(FRAME_BYTES + 1)), pb.EchoFrame(answer_bytes=2**31)], ids=["data", "answer"]
)
async def test_a_frame_beyond_the_limit_is_refused(frame: pb.EchoFrame) -> None:
    async with two_workers() as (_, stub):
        call = stub.Echo()
        await call.write(frame)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_no_frame_is_read_before_the_answer_to_the_last_was_taken() -> None:
    read = 0

    async def frames() -> AsyncIterator[pb.EchoFrame]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield pb.EchoFrame(data=b"x", answer_bytes=4)

    answers = Echo("w0").answers(frames())
    for number in range(1, 4):
        assert (await anext(answers)).data == bytes(4)
        assert read == number
    await answers.aclose()


async def test_more_streams_than_are_answered_at_once_are_refused_and_closed_ones_count_no_more() -> None:
    echo = Echo("w0")

    async def one() -> AsyncIterator[pb.EchoFrame]:
        yield pb.EchoFrame()

    open_ones = [echo.answers(one()) for _ in range(STREAMS)]
    for each in open_ones:
        await anext(each)
    with pytest.raises(Full, match="echo streams"):
        await anext(echo.answers(one()))
    for each in open_ones:
        await each.aclose()
    assert await anext(echo.answers(one()))


async def test_a_frame_that_is_too_large_ends_its_own_stream_only() -> None:
    async def large() -> AsyncIterator[pb.EchoFrame]:
        yield pb.EchoFrame(answer_bytes=FRAME_BYTES + 1)

    echo = Echo("w0")
    for _ in range(STREAMS + 1):
        with pytest.raises(Refused, match="echo frame"):
            await anext(echo.answers(large()))
