"""What somebody on the way between a client, the swarm and its Workers can read: with a key, nothing of what is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace

import pytest
from capture import can_capture, captured
from plans import free_addresses, odd_experts_on, plan_of
from questions import answer, questions
from swarm_processes import InMemory, workers_here

from swarm.client.client import open_client
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb

STORY = questions("stories")[0]
SAID = STORY.prompt[1:]
"""Without what every prompt begins with."""


class Tap:
    """A TCP relay to a server on loopback that keeps every byte of both directions."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.heard = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the other end is gone, and hears so
        finally:
            writer.close()


@asynccontextmanager
async def tapped(target: str, address: str) -> AsyncIterator[Tap]:
    tap = Tap(target)
    host, _, port = address.rpartition(":")
    server = await asyncio.start_server(tap.serve, host, int(port))
    try:
        yield tap
    finally:
        server.close()


async def overheard(plan: Plan, credentials: Credentials) -> tuple[list[int], dict[str, bytes]]:
    """A chat over Workers that are each behind a Tap: its answer, and what was heard before each Worker."""
    behind = free_addresses([w.name for w in plan.workers])
    hidden = replace(plan, workers=tuple(replace(w, address=behind[w.name]) for w in plan.workers))
    async with AsyncExitStack() as stack:
        taps = {w.name: await stack.enter_async_context(tapped(behind[w.name], w.address)) for w in plan.workers}
        workers = await stack.enter_async_context(workers_here(hidden, credentials, commit=False))
        for name, worker in workers.items():
            async for _ in worker.prepare(plan, name):  # so that Hops, too, go through the Taps
                pass
            worker.commit(plan.epoch)
        client = await stack.enter_async_context(open_client(InMemory(plan), credentials))
        said = await answer(client.conversation(), STORY.prompt, 8)
        return said, {name: bytes(tap.heard) for name, tap in taps.items()}


def on_the_wire(tokens: list[int]) -> bytes:
    """Tokens as a frame has them."""
    return pb.StepHeader(tokens=tokens).SerializeToString()[2:]


@pytest.mark.parametrize(("key", "readable"), [("", True), ("a key", False)], ids=["without a key", "with a key"])
async def test_a_prompt_can_be_read_on_the_way_only_where_there_is_no_key(key: str, readable: bool) -> None:
    plan = plan_of([4, 8], odd_experts_on("w2", range(2)))  # two Workers, and a third with experts
    with captured(w.address for w in plan.workers) if can_capture() else nullcontext() as packets:
        said, heard = await overheard(plan, Credentials(key))
    assert said == STORY.answer[:8]
    assert all(len(passed) > 1000 for passed in heard.values()), "next to nothing went through a tap"
    assert (on_the_wire(SAID[:6]) in heard["w0"]) is readable
    calls = {"w0": b"Submit", "w1": b"Hop", "w2": b"Experts"}  # from the client, from Worker to Worker, and to a holder of experts
    named = {name: b"/swarm.v1.StageService/" + call in heard[name] for name, call in calls.items()}
    assert named == dict.fromkeys(calls, readable)
    assert not any(b"a key" in passed for passed in heard.values())
    if packets is not None:  # the same of what a capture of loopback sees, which only root may make
        secret = [on_the_wire(SAID[:6]), *(b"/swarm.v1.StageService/" + call for call in calls.values())]
        assert [each in packets for each in secret] == [readable] * len(secret)
        assert len(packets) > 3000 and b"a key" not in packets
