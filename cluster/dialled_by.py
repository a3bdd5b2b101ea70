"""A machine's own side of being dialled back: it listens while others dial it, and dials them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from cluster.dial_back import DIAL_S
from cluster.unreached import why_no_way
from swarm.errors import PortInUse, Unreachable
from swarm.wire.dial import dial
from swarm.wire.v1 import swarm_pb2 as pb


@asynccontextmanager
async def listening(host: str, ports: Sequence[int]) -> AsyncIterator[None]:
    """Take connections on all these ports, and close them. Raises PortInUse."""
    async with AsyncExitStack() as stack:
        for port in ports:
            try:
                server = await asyncio.start_server(lambda _, writer: writer.close(), host, port)
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                raise PortInUse(f"cannot listen on {host}:{port} ({why}): choose another range with --ports") from None
            await stack.enter_async_context(server)
        yield


async def check_ways(rig: str, host: str, neighbours: Iterable[pb.Neighbour]) -> None:
    """Raise Unreachable unless this Rig, at `host`, can dial a Worker of each other Rig."""
    for neighbour, why in await ways(neighbours):
        if why:
            raise Unreachable(why_no_way(rig, host, neighbour, why))


async def ways(neighbours: Iterable[pb.Neighbour]) -> list[tuple[pb.Neighbour, str]]:
    """Each of them with why it cannot be dialled; empty where it can."""
    asked = list(neighbours)
    return list(zip(asked, await asyncio.gather(*map(_dial, asked)), strict=True))


async def _dial(neighbour: pb.Neighbour) -> str:
    host, _, port = neighbour.worker_address.rpartition(":")
    return (await dial(host.strip("[]"), [int(port)], DIAL_S))[0]
