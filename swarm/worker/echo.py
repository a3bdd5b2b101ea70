"""The way between two Workers, measured through the gRPC that carries Hops: round trip and bandwidth.

A round trip is taken after a pause, as in decode, where a Stage waits for the others between two Hops: idle threads must be
woken. The figures are made for `rtt / 2 + bytes / bandwidth`, so what a message's own bytes took is not in the round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from statistics import median

import grpc
import grpc.aio

from swarm.errors import Full, NoSwarm, Refused, SwarmError, Unreachable
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc, silence
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub

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
                if len(frame.data) > FRAME_BYTES or frame.answer_bytes > FRAME_BYTES:
                    raise Refused(f"an echo frame may carry {FRAME_BYTES} bytes each way", self._name)
                yield pb.EchoFrame(data=bytes(frame.answer_bytes))
        finally:
            self._open -= 1


async def measure_link(credentials: Credentials, here: str, address: str, budget_s: float) -> pb.LinkReply:
    """The way from the Worker at `here` to the one at `address`.

    Raises:
        Unreachable: nobody answers there, or too slowly for the budget.
        SwarmError: what that Worker says against it.
    """
    budget_s = min(budget_s, MOST_BUDGET_S) if budget_s > 0 else BUDGET_S
    began = time.monotonic()
    async with _stream_to(credentials, here, address, budget_s) as stream:
        rtt_s, bytes_per_s = await _figures(stream, budget_s)
    return pb.LinkReply(rtt_s=rtt_s, bytes_per_s=bytes_per_s, took_s=time.monotonic() - began)


async def measure_both_ways(credentials: Credentials, here: str, address: str, budget_s: float) -> tuple[float, float, float]:
    """Round trip in seconds, bytes a second to the Worker at `address`, and from it. Raises what `measure_link` raises."""
    async with _stream_to(credentials, here, address, budget_s) as stream:
        rtt_s, there = await _figures(stream, budget_s / 2)
        return rtt_s, there, await _bandwidth(stream, rtt_s, budget_s / 2, back=True)


@asynccontextmanager
async def _stream_to(credentials: Credentials, here: str, address: str, budget_s: float) -> AsyncGenerator[_Stream, None]:
    """An Echo stream, and what goes wrong with it in our words."""
    channel = credentials.channel(address)
    try:
        async with asyncio.timeout(budget_s + CONNECT_S):
            yield _Stream(WorkerServiceStub(channel).Echo())
    except TimeoutError:
        raise Unreachable(_silent(here, address, f"no answer in {budget_s + CONNECT_S:.0f} s")) from None
    except grpc.aio.AioRpcError as error:
        meant = from_rpc(error, f"the worker at {address}, asked from {here},")
        if isinstance(meant, NoSwarm):
            raise Unreachable(_silent(here, address, silence(error))) from None
        raise meant from None
    finally:
        await channel.close(None)


def _silent(here: str, address: str, why: str) -> str:
    return (
        f"the worker at {here} does not reach the one at {address} ({why}): check that its rig runs, and its firewall and --ports"
    )


class _Stream:
    """One Echo stream, a frame at a time."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.EchoFrame, pb.EchoFrame]) -> None:
        self._call = call

    async def seconds(self, data_bytes: int, answer_bytes: int = 0) -> float:
        """From writing a frame to reading its answer."""
        frame = pb.EchoFrame(data=bytes(data_bytes), answer_bytes=answer_bytes)
        began = time.perf_counter()
        with contextlib.suppress(asyncio.InvalidStateError):  # it has ended: reading says why
            await self._call.write(frame)
        answer = await self._call.read()
        if not isinstance(answer, pb.EchoFrame):
            raise SwarmError("the other side ended the stream")
        return time.perf_counter() - began


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
