"""The gRPC face of a Decoder for others: `TextService` of a rig."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress

from swarm.api.conversing import WAITING, converse
from swarm.api.last_plan import following
from swarm.api.open_conversations import OpenConversations
from swarm.api.shared_client import SharedClient
from swarm.client.plan_source import Known
from swarm.errors import SwarmError
from swarm.wire.admission import Admission
from swarm.wire.credentials import Credentials
from swarm.wire.revoking import Revoking
from swarm.wire.status import to_rpc
from swarm.wire.v1 import text_pb2 as pb
from swarm.wire.v1.key_pb2_grpc import add_KeyServiceServicer_to_server
from swarm.wire.v1.text_pb2_grpc import TextServiceServicer, add_TextServiceServicer_to_server
from swarm.wire.whose import Context, whose

GRACE_S = 1.0


class TextServicer(TextServiceServicer):
    """Any number of conversations over one Client.

    Args:
        address: host:port of the swarm's door now.
        known: the swarm's last Plan, for when its door is silent.
    """

    def __init__(self, address: Callable[[], str], credentials: Credentials, known: Callable[[], Known | None]) -> None:
        self._open: set[asyncio.Queue[pb.Said]] = set()
        self._conversations = OpenConversations()
        self._client = SharedClient(address, credentials, self._tell, known)

    async def Converse(self, turns: AsyncIterator[pb.Turn], context: Context) -> AsyncIterator[pb.Said]:
        try:
            with self._conversations.one_more(whose(context)):
                async with aclosing(self._said(turns)) as all_said:
                    async for each in all_said:
                        yield each
        except SwarmError as error:
            await context.abort(*to_rpc(error))

    async def _said(self, turns: AsyncIterator[pb.Turn]) -> AsyncGenerator[pb.Said]:
        """What one conversation says, from its beginning to its end. Raises SwarmError."""
        said: asyncio.Queue[pb.Said] = asyncio.Queue(WAITING)
        self._open.add(said)
        talking = asyncio.create_task(self._talk(turns, said))
        try:
            async for each in _all_said(said, talking):
                yield each
        finally:
            self._open.discard(said)
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)

    async def _talk(self, turns: AsyncIterator[pb.Turn], said: asyncio.Queue[pb.Said]) -> None:
        async with self._client.one() as client:
            await converse(client, turns, said)

    def _tell(self, news: str) -> None:
        for said in self._open:
            with suppress(asyncio.QueueFull):  # who does not even read the answer misses the news
                said.put_nowait(pb.Said(news=news))


async def _all_said(said: asyncio.Queue[pb.Said], talking: asyncio.Task[None]) -> AsyncIterator[pb.Said]:
    """What comes until the conversation ends. Raises what that ends with."""
    while not (talking.done() and said.empty()):
        coming = asyncio.ensure_future(said.get())
        try:
            await asyncio.wait({coming, talking}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                yield coming.result()
        finally:
            coming.cancel()
    talking.result()


@asynccontextmanager
async def serving_text(listen: str, address: Callable[[], str], credentials: Credentials) -> AsyncIterator[str]:
    """Serve it at host:port (port 0: any) until the block ends; host:port.

    Args:
        address: where the swarm's door is now.

    Raises:
        PortInUse.
    """
    admission = Admission()
    server = credentials.server(admission)
    port = credentials.bind(server, listen)
    async with following(address, credentials) as last:
        add_TextServiceServicer_to_server(TextServicer(address, credentials, last.known), server)
        add_KeyServiceServicer_to_server(Revoking(admission), server)
        await server.start()
        try:
            yield f"{listen.rpartition(':')[0]}:{port}"
        finally:
            await server.stop(GRACE_S)
