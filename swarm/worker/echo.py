"""The way between two Workers, measured as Hops take it, through gRPC or on one rig past it: round trip and bandwidth.

A round trip is taken after a pause, as in decode, where a Stage waits for the others between two Hops: idle threads must be
woken. The figures are made for `rtt / 2 + bytes / bandwidth`, so what a message's own bytes took is not in the round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Protocol

import grpc
import grpc.aio

from swarm.errors import Full, NoSwarm, Refused, SwarmError, Unreachable
from swarm.wire import near
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc, silence
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub
from swarm.worker.near_streams import Call, NearStream

FRAME_BYTES = 8 * 2**20
"""The most that one frame carries either way."""
STREAMS = 8
"""Echo streams that a Worker answers at once."""
HIDDEN_BYTES = 8192
"""Mixtral's hidden state in bf16."""
TINY_BYTES = 64
FIRST_PUSH = 64 * 1024
PINGS = 20
WARM_UP = 3
PAUSE_S = 0.003
BUDGET_S = 1.0
MOST_BUDGET_S = 10.0
PUSH_SHARE = 0.6
"""Of the budget, for bandwidth."""
CALLS_SHARE = 0.3
"""Of the budget, for what goes through gRPC where Hops do without it."""
CONNECT_S = 3.0
"""How long a Worker that does not answer is waited for, beyond the budget."""


class Echo:
    """Answers frames, each before the next is read: who sends more than it reads fills its own window, not our memory."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open = 0

    async def answers(self, frames: AsyncIterable[pb.EchoFrame]) -> AsyncGenerator[pb.EchoFrame, None]:
        """One stream. Raises Full where too many are open, Refused where a frame is too large."""
        if self._open >= STREAMS:
            raise Full(f"{STREAMS} echo streams are open here already: measure links a few at a time", self._name)
        self._open += 1
        try:
            async for frame in frames:
                yield _answer(frame, self._name)
        finally:
            self._open -= 1


class Echoing:
    """An open stream of a Worker on the same rig, past gRPC: `Echo`, but that nobody from elsewhere can open one."""

    def __init__(self, name: str, send: Callable[[pb.EchoFrame], None]) -> None:
        self._name, self._send = name, send

    def take(self, frame: pb.EchoFrame) -> None:
        self._send(_answer(frame, self._name))

    def end(self) -> None:
        """Each frame was answered when it came."""


def _answer(frame: pb.EchoFrame, name: str) -> pb.EchoFrame:
    if len(frame.data) > FRAME_BYTES or frame.answer_bytes > FRAME_BYTES:
        raise Refused(f"an echo frame may carry {FRAME_BYTES} bytes each way", name)
    return pb.EchoFrame(data=bytes(frame.answer_bytes))


async def measure_link(credentials: Credentials, here: str, address: str, budget_s: float, beside: str = "") -> pb.LinkReply:
    """The way from the Worker at `here` to the one at `address`.

    Args:
        beside: that Worker's name, where it is on the same rig: measured is the way that Hops take there, and where that is
            past gRPC the round trip through it, too.

    Raises:
        Unreachable: nobody answers there, or too slowly for the budget.
        SwarmError: what that Worker says against it.
    """
    budget_s = min(budget_s, MOST_BUDGET_S) if budget_s > 0 else BUDGET_S
    began = time.monotonic()
    path = near.streams_of(beside, near.port_of(address)) if beside else None
    share = CALLS_SHARE if path else 1.0
    async with _stream_to(credentials, here, address, share * budget_s) as stream:
        rtt_s, bytes_per_s = await _figures(stream, share * budget_s)
    reply = pb.LinkReply(rtt_s=rtt_s, bytes_per_s=bytes_per_s)
    if path is not None:
        async with _stream_beside(path, here, address, (1 - share) * budget_s) as past:
            reply.calls_rtt_s = rtt_s
            reply.rtt_s, reply.bytes_per_s = await _figures(past, (1 - share) * budget_s)
    reply.took_s = time.monotonic() - began
    return reply


async def measure_both_ways(credentials: Credentials, here: str, address: str, budget_s: float) -> tuple[float, float, float]:
    """Round trip in seconds, bytes a second to the Worker at `address`, and from it. Raises what `measure_link` raises."""
    async with _stream_to(credentials, here, address, budget_s) as stream:
        rtt_s, there = await _figures(stream, budget_s / 2)
        return rtt_s, there, await _bandwidth(stream, rtt_s, budget_s / 2, back=True)


@asynccontextmanager
async def _stream_to(credentials: Credentials, here: str, address: str, budget_s: float) -> AsyncGenerator[_Call, None]:
    """An Echo stream, and what goes wrong with it in our words."""
    channel = credentials.channel(address)
    try:
        async with asyncio.timeout(budget_s + CONNECT_S):
            yield _Call(WorkerServiceStub(channel).Echo())
    except TimeoutError:
        raise Unreachable(_silent(here, address, f"no answer in {budget_s + CONNECT_S:.0f} s")) from None
    except grpc.aio.AioRpcError as error:
        meant = from_rpc(error, f"the worker at {address}, asked from {here},")
        if isinstance(meant, NoSwarm):
            raise Unreachable(_silent(here, address, silence(error))) from None
        raise meant from None
    finally:
        await channel.close(None)


@asynccontextmanager
async def _stream_beside(path: Path, here: str, address: str, budget_s: float) -> AsyncGenerator[_Beside, None]:
    """The same past gRPC, at the socket of a Worker on the same rig."""
    came: asyncio.Queue[float] = asyncio.Queue()
    try:
        async with asyncio.timeout(budget_s + CONNECT_S):
            stream = await NearStream.to(path, Call.ECHO, pb.EchoFrame, lambda _: came.put_nowait(time.perf_counter()))
            beside = _Beside(stream, came)
            try:
                yield beside
            finally:
                beside.close()
    except TimeoutError:
        raise Unreachable(_silent(here, address, f"no answer in {budget_s + CONNECT_S:.0f} s")) from None
    except OSError as error:
        raise Unreachable(_silent(here, address, str(error))) from None


def _silent(here: str, address: str, why: str) -> str:
    return (
        f"the worker at {here} does not reach the one at {address} ({why}): check that its rig runs, and its firewall and --ports"
    )


class _Stream(Protocol):
    """Echo frames, one at a time."""

    async def seconds(self, data_bytes: int, answer_bytes: int = 0) -> float:
        """From writing a frame to reading its answer."""
        ...


class _Call:
    """One Echo stream through gRPC."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.EchoFrame, pb.EchoFrame]) -> None:
        self._call = call

    async def seconds(self, data_bytes: int, answer_bytes: int = 0) -> float:
        frame = pb.EchoFrame(data=bytes(data_bytes), answer_bytes=answer_bytes)
        began = time.perf_counter()
        with contextlib.suppress(asyncio.InvalidStateError):  # it has ended: reading says why
            await self._call.write(frame)
        answer = await self._call.read()
        if not isinstance(answer, pb.EchoFrame):
            raise SwarmError("the other side ended the stream")
        return time.perf_counter() - began


class _Beside:
    """One past it.

    Args:
        came: the moments at which answers came, of time.perf_counter.
    """

    def __init__(self, stream: NearStream[pb.EchoFrame], came: asyncio.Queue[float]) -> None:
        self._stream, self._came = stream, came
        self._ended = asyncio.ensure_future(stream.ended())

    async def seconds(self, data_bytes: int, answer_bytes: int = 0) -> float:
        frame = pb.EchoFrame(data=bytes(data_bytes), answer_bytes=answer_bytes)
        began = time.perf_counter()
        self._stream.send(frame)
        answer = asyncio.ensure_future(self._came.get())
        await asyncio.wait((answer, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result() - began
        answer.cancel()
        raise SwarmError(f"the other side ended the stream: {self._ended.result()}")

    def close(self) -> None:
        self._ended.cancel()
        self._stream.close()


async def _figures(stream: _Stream, budget_s: float) -> tuple[float, float]:
    """Round trip in seconds and bytes a second."""
    for _ in range(WARM_UP):
        await stream.seconds(HIDDEN_BYTES, HIDDEN_BYTES)
    tiny, hidden = await _round_trips(stream, budget_s * (1 - PUSH_SHARE))
    bytes_per_s = await _bandwidth(stream, tiny, budget_s * PUSH_SHARE)
    return max(tiny, hidden - 2 * HIDDEN_BYTES / bytes_per_s), bytes_per_s


async def _round_trips(stream: _Stream, budget_s: float) -> tuple[float, float]:
    """Seconds of a message of next to nothing, and of one with a hidden state each way; medians."""
    until = time.perf_counter() + budget_s
    tiny: list[float] = []
    hidden: list[float] = []
    while len(hidden) < PINGS and (not hidden or time.perf_counter() < until):
        await asyncio.sleep(PAUSE_S)
        tiny.append(await stream.seconds(TINY_BYTES, TINY_BYTES))
        await asyncio.sleep(PAUSE_S)
        hidden.append(await stream.seconds(HIDDEN_BYTES, HIDDEN_BYTES))
    return median(tiny), median(hidden)


async def _bandwidth(stream: _Stream, rtt_s: float, budget_s: float, back: bool = False) -> float:
    """Bytes a second of the largest push (or answer) that the time allows, the median where it allows several.

    Growing, because a stream's windows and TCP's grow with what they carry, and a shaped link lets the first bytes through at once.
    """
    until = time.perf_counter() + budget_s
    size, rates = FIRST_PUSH, list[float]()
    while True:
        took = await stream.seconds(*((0, size) if back else (size, 0)))
        rates.append(size / max(took - rtt_s, took / 10))
        left = until - time.perf_counter()
        if left < took:
            return median(rates)
        if 2 * size <= FRAME_BYTES and left > 2 * took:
            size, rates = 2 * size, []
