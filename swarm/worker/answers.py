"""The streams that clients opened to this Worker before their first Step: Candidates go out here."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator

from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.outbox import Outbox, Pile


class Answers:
    """Client id → the stream that it listens on. Lives on the loop's thread.

    A client that lets too much pile up is cut off: its Sessions can be taken up again, its memory here cannot grow.
    """

    def __init__(self) -> None:
        self._streams: dict[bytes, Outbox[pb.Answer]] = {}

    async def listen(self, client: bytes, pile: Pile | None = None) -> AsyncGenerator[pb.Answer, None]:
        """What this client is answered from now on; the first, empty, message says that it listens. For `pile` see Outbox."""
        outbox = Outbox[pb.Answer](functools.partial(self._streams.pop, client, None), pile)
        if (older := self._streams.get(client)) is not None:
            older.end()
        self._streams[client] = outbox
        try:
            yield pb.Answer()
            async for answer in outbox:
                yield answer
            outbox.check()
        finally:
            if self._streams.get(client) is outbox:
                del self._streams[client]

    def send(self, client: bytes, answer: pb.Answer) -> None:
        """Answer a client, if it listens. One that does not will send its Step again."""
        if (outbox := self._streams.get(client)) is not None:
            outbox.put(answer)
