"""What is to be said on one stream, bounded: who does not read it loses the stream, not our memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from swarm.errors import Lost, gib

UNREAD_BYTES = 64 * 2**20
"""What may pile up unread on one stream, or on all of one client, beyond one message."""
MESSAGE_OVERHEAD = 512
"""Bytes that a message costs beside its own, so that empty ones count too."""


class Message(Protocol):
    """What protobuf's messages can say of themselves."""

    def ByteSize(self) -> int: ...


M = TypeVar("M", bound=Message)


class Pile:
    """What is unread on all streams of one client."""

    def __init__(self) -> None:
        self._boxes: WeakSet[Outbox[Any]] = WeakSet()

    def add(self, box: Outbox[Any]) -> None:
        self._boxes.add(box)

    @property
    def num_bytes(self) -> int:
        return sum(box.unread for box in self._boxes)


class Outbox(Generic[M]):
    """Messages for one stream, in order. Lives on the loop's thread.

    Args:
        on_overflow: called once, when its reader has let too much pile up and the stream ends.
        pile: its client's, which bounds all of its streams together; None: it is bounded alone.
    """

    def __init__(self, on_overflow: Callable[[], object] = lambda: None, pile: Pile | None = None) -> None:
        self._on_overflow = on_overflow
        self._messages: deque[tuple[M, int]] = deque()
        self.unread = 0
        self._pile = pile or Pile()
        self._pile.add(self)
        self._ended = self._overflown = False
        self._changed = asyncio.Event()

    def put(self, message: M) -> None:
        """Say something; nothing where the stream has ended."""
        if self._ended:
            return
        size = message.ByteSize() + MESSAGE_OVERHEAD
        if self._messages and self._pile.num_bytes + size > UNREAD_BYTES:
            self._messages.clear()
            self.unread, self._overflown = 0, True
            self.end()
            self._on_overflow()
            return
        self._messages.append((message, size))
        self.unread += size
        self._changed.set()

    def check(self, reader: asyncio.Task[None] | None = None) -> None:
        """Raise what ended the stream, if anything went wrong: Lost where it was not read, or what its reader found."""
        if self._overflown:
            raise Lost(f"this client let more than {gib(UNREAD_BYTES)} pile up unread, and its stream was closed: read faster")
        if reader is not None and reader.done() and not reader.cancelled():
            reader.result()

    def end(self) -> None:
        """End the stream once what was said is read."""
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[M]:
        while True:
            while self._messages:
                message, size = self._messages.popleft()
                yield message
                self.unread = max(0, self.unread - size)  # once it is written
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()
