"""A TCP relay before a server on loopback: it counts what comes back, and can cut it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """`cuts`: after how many more bytes each of the next connections breaks off; a connection after those lives on."""

    def __init__(self, target: str) -> None:
        self.host, _, port = target.rpartition(":")
        self.port = int(port)
        self.address = ""
        self.came = 0
        self.connections = 0
        self.cuts: list[int] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def die(self) -> None:
        """Break every connection and take no more."""
        if self._server:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection; new ones live."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection(self.host, self.port)
        self._writers |= {writer, back}
        left = self.cuts.pop(0) if self.cuts else None
        forward = asyncio.ensure_future(_copy(reader, back))
        try:
            while data := await there.read(1 << 16):
                self.came += len(data)
                if left is not None and (left := left - len(data)) <= 0:
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            forward.cancel()
            for end in (writer, back):
                end.transport.abort()
                self._writers.discard(end)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return


@asynccontextmanager
async def relay_to(target: str) -> AsyncIterator[Relay]:
    relay = Relay(target)
    await relay.open()
    try:
        yield relay
    finally:
        await relay.die()
