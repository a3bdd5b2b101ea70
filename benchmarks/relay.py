"""A TCP relay whose bytes arrive later: `python -m benchmarks.relay HOST:PORT SECONDS` prints the port that it listens on."""

from __future__ import annotations

import asyncio
import sys

PIECE_BYTES = 1 << 18


async def relay(target: str, delay_s: float) -> None:
    """Serve on a free port of loopback until the process ends."""
    host, _, port = target.rpartition(":")
    moving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        for ways in ((reader, back), (there, writer)):
            moving.add(task := asyncio.create_task(move(*ways, delay_s)))
            task.add_done_callback(moving.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """One direction of one connection: every piece `delay_s` after it came."""
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(PIECE_BYTES):
            loop.call_later(delay_s, writer.write, data)
        await asyncio.sleep(delay_s)
    except ConnectionError:
        pass  # the other direction ends with it
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1], float(sys.argv[2])))
