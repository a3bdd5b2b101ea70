"""What is to be said on one stream, bounded: who does not read it loses the stream, not our memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

UNREAD_BYTES = 64 * 2**20
"""What may pile up unread, beyond one message."""
MESSAGE_OVERHEAD = 512
"""Bytes that a message costs beside its own, so that empty ones count too."""


class Message(Protocol):
    """What protobuf's messages can say of themselves."""

    def ByteSize(self) -> int: ...


M = TypeVar("M", bound=Message)


class Outbox(Generic[M]):
    """Messages for one stream, in order. Lives on the loop's thread.

    Args:
        on_overflow: called once, when its reader has let too much pile up and the stream ends.
    """

    def __init__(self, on_overflow: Callable[[], object] = lambda: None) -> None:
        self._on_overflow = on_overflow
        self._messages: deque[tuple[M, int]] = deque()
        self._unread = 0
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, message: M) -> None:
        """Say something; nothing where the stream has ended."""
        if self._ended:
            return
        size = message.ByteSize() + MESSAGE_OVERHEAD
        if self._messages and self._unread + size > UNREAD_BYTES:
            self._messages.clear()
            self.end()
            self._on_overflow()
            return
        self._messages.append((message, size))
        self._unread += size
        self._changed.set()

    def end(self) -> None:
        """End the stream once what was said is read."""
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[M]:
        while True:
            while self._messages:
                message, size = self._messages.popleft()
                yield message
                self._unread -= size  # once it is written
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()
