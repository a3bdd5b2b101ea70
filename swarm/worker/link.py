"""One open stream to one other Worker: messages out in order, replies back, and a clear end when it breaks.

Hops and expert requests are both this. A link that broke opens a new stream with the next message; one that was
closed never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio

Out = TypeVar("Out")
Back = TypeVar("Back")
CLOSED = "the stream was closed"


class Near(Protocol):
    """A stream whose messages leave as they are sent; see `swarm.worker.near_streams`."""

    def send(self, message: Any) -> None:
        """From any thread."""
        ...

    def close(self) -> None: ...

    async def ended(self) -> str:
        """Return why it ended, once it has."""
        ...


class Link(Generic[Out, Back]):
    """A stream that is opened when first used. Lives on the loop's thread.

    Args:
        open_stream: makes the call, for instance `stub.Hop`.
        on_reply: called with each message that comes back.
        on_broken: called once for each stream that ends, with a sentence why; what was sent and not answered is lost.
        open_near: opens a stream past gRPC, whose messages go to `on_reply`; answers None where there is none.
    """

    def __init__(
        self,
        open_stream: Callable[[], grpc.aio.StreamStreamCall[Out, Back]],
        on_reply: Callable[[Back], None],
        on_broken: Callable[[str], None],
        open_near: Callable[[Callable[[Back], None]], Awaitable[Near | None]] | None = None,
    ) -> None:
        self._open_stream, self._open_near = open_stream, open_near
        self._on_reply = on_reply
        self._on_broken = on_broken
        self._outbox: asyncio.Queue[Out] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._at_once: Callable[[Out], None] | None = None
        """Sends without queueing, on a stream that is there."""
        self._closed = False

    def send(self, message: Out) -> None:
        """Send or queue a message. Never waits; what cannot be sent is told through `on_broken`."""
        if self._at_once is not None:
            self._at_once(message)
            return
        if self._closed:
            self._on_broken(CLOSED)
            return
        self._outbox.put_nowait(message)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._let_go)

    def send_at_once(self, message: Out) -> bool:
        """Send from any thread, past gRPC; False where no such stream is there. `on_broken` is yet to come if it ends meanwhile."""
        if (at_once := self._at_once) is None:
            return False
        at_once(message)
        return True

    def drop(self) -> None:
        """End the stream; the next message opens another."""
        if self._task is not None:
            self._task.cancel()

    def renew(self) -> None:
        """Let go of a stream on which nothing is awaited; the next message opens another."""
        if self._task is not None:
            self._task.cancel()
            self._task, self._at_once, self._outbox = None, None, asyncio.Queue()

    async def close(self) -> None:
        """End the stream, for good."""
        self._closed, self._at_once = True, None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        if self._task is task:  # cancelled before it began
            self._task = self._at_once = None
            self._outbox = asyncio.Queue()
            self._on_broken(CLOSED)

    async def _run(self) -> None:
        why, mine, outbox = CLOSED, asyncio.current_task(), self._outbox
        try:
            near = await self._open_near(self._on_reply) if self._open_near else None
            why = await (self._through_grpc(outbox) if near is None else self._through(near, outbox))
        except grpc.aio.AioRpcError as error:
            why = error.details() or error.code().name
        finally:
            if self._task is mine:  # else it was let go of, and there may be another
                self._task = self._at_once = None
                self._outbox = asyncio.Queue()
                self._on_broken(why)

    async def _through(self, near: Near, outbox: asyncio.Queue[Out]) -> str:
        try:
            while not outbox.empty():
                near.send(outbox.get_nowait())
            if outbox is self._outbox and not self._closed:
                self._at_once = near.send
            return await near.ended()
        finally:
            near.close()

    async def _through_grpc(self, outbox: asyncio.Queue[Out]) -> str:
        call: Any = self._open_stream()
        writer = asyncio.get_running_loop().create_task(self._write(call, outbox))
        try:
            async for reply in call:
                self._on_reply(reply)
        finally:
            writer.cancel()
            call.cancel()
        return CLOSED

    async def _write(self, call: Any, outbox: asyncio.Queue[Out]) -> None:
        try:
            while True:
                await call.write(await outbox.get())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            call.cancel()  # the reader, which waits on the same call, says why
