"""A Link's end is told once for each stream; nothing said to a broken stream is sent again by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from swarm.worker.link import Link


class Stream:
    """The in-memory twin of a gRPC stream: what was written, and replies that the test puts in."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[str] = asyncio.Queue()
        self.replies: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.accepts = asyncio.Event()
        self.accepts.set()

    async def write(self, message: str) -> None:
        await self.accepts.wait()
        self.written.put_nowait(message)

    def cancel(self) -> None:
        self.replies.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (reply := await self.replies.get()) is not None:
            if isinstance(reply, Exception):
                raise reply
            yield reply


class Ends:
    """A Link, the streams that it opened, and what it told."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.replies: list[str] = []
        self.broken: asyncio.Queue[str] = asyncio.Queue()
        self.link: Link[str, str] = Link(self._open, self.replies.append, self.broken.put_nowait)  # type: ignore[arg-type]

    def _open(self) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]


def gone(details: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details)


async def test_messages_go_out_in_order_over_one_stream() -> None:
    ends = Ends()
    for message in "abc":
        ends.link.send(message)
    async with asyncio.timeout(60):
        while not ends.streams:
            await asyncio.sleep(0)
        assert [await ends.streams[0].written.get() for _ in range(3)] == ["a", "b", "c"]
    assert len(ends.streams) == 1
    await ends.link.close()


async def test_a_stream_that_breaks_says_why_once_and_the_next_message_opens_another() -> None:
    ends = Ends()
    ends.link.send("a")
    async with asyncio.timeout(60):
        while not ends.streams:
            await asyncio.sleep(0)
        await ends.streams[0].written.get()
        ends.streams[0].replies.put_nowait(gone("no route to host"))
        assert await ends.broken.get() == "no route to host"
        ends.link.send("b")
        while len(ends.streams) < 2:
            await asyncio.sleep(0)
        assert await ends.streams[1].written.get() == "b"
    assert ends.broken.empty()
    assert ends.streams[0].written.empty()
    await ends.link.close()


async def test_what_was_not_written_when_the_stream_broke_is_not_sent_on_the_next() -> None:
    ends = Ends()
    ends.link.send("a")
    async with asyncio.timeout(60):
        while not ends.streams:
            await asyncio.sleep(0)
        await ends.streams[0].written.get()
        ends.streams[0].accepts.clear()
        ends.link.send("stuck")
        ends.link.send("behind it")
        await asyncio.sleep(0)
        ends.streams[0].replies.put_nowait(gone("reset"))
        await ends.broken.get()
        ends.streams[0].accepts.set()
        ends.link.send("new")
        while len(ends.streams) < 2:
            await asyncio.sleep(0)
        assert await ends.streams[1].written.get() == "new"
    assert ends.streams[1].written.empty()
    await ends.link.close()


async def test_a_stream_that_the_other_side_ends_is_broken_too() -> None:
    ends = Ends()
    ends.link.send("a")
    async with asyncio.timeout(60):
        while not ends.streams:
            await asyncio.sleep(0)
        ends.streams[0].replies.put_nowait("an answer")
        ends.streams[0].replies.put_nowait(None)
        assert await ends.broken.get()
    assert ends.replies == ["an answer"]


async def test_a_closed_link_opens_no_stream_and_says_so() -> None:
    ends = Ends()
    ends.link.send("a")
    async with asyncio.timeout(60):
        while not ends.streams:
            await asyncio.sleep(0)
        await ends.link.close()
        assert await ends.broken.get()
    ends.link.send("b")
    assert ends.broken.get_nowait()
    await asyncio.sleep(0)
    assert len(ends.streams) == 1


async def test_what_was_said_to_a_link_closed_at_once_is_told_as_lost() -> None:
    ends = Ends()
    ends.link.send("a")
    await ends.link.close()
    assert ends.broken.get_nowait()
    assert not ends.streams


async def test_a_link_dropped_before_its_stream_was_opened_says_so_and_opens_another() -> None:
    ends = Ends()
    ends.link.send("one")
    ends.link.drop()  # in the same turn of the loop
    async with asyncio.timeout(60):
        await ends.broken.get()
        ends.link.send("two")
        while not ends.streams:
            await asyncio.sleep(0)
        assert await ends.streams[-1].written.get() == "two"
    await ends.link.close()
