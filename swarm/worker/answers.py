"""The streams that clients opened to this Worker before their first Step: Candidates go out here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from swarm.wire.v1 import stage_pb2 as pb

UNREAD_ANSWERS = 4096
"""A client that lets more pile up is cut off: its Sessions can be taken up again, its memory here cannot grow."""


class Answers:
    """Client id → the stream that it listens on. Lives on the loop's thread."""

    def __init__(self) -> None:
        self._streams: dict[bytes, asyncio.Queue[pb.Answer | None]] = {}

    async def listen(self, client: bytes) -> AsyncIterator[pb.Answer]:
        """What this client is answered from now on; the first, empty, message says that it listens."""
        queue: asyncio.Queue[pb.Answer | None] = asyncio.Queue()
        if (older := self._streams.get(client)) is not None:
            older.put_nowait(None)
        self._streams[client] = queue
        try:
            yield pb.Answer()
            while (answer := await queue.get()) is not None:
                yield answer
        finally:
            if self._streams.get(client) is queue:
                del self._streams[client]

    def send(self, client: bytes, answer: pb.Answer) -> None:
        """Answer a client, if it listens. One that does not will send its Step again."""
        queue = self._streams.get(client)
        if queue is None:
            return
        if queue.qsize() >= UNREAD_ANSWERS:
            del self._streams[client]
            queue.put_nowait(None)
            return
        queue.put_nowait(answer)
