"""A relay in a process of its own, before all servers of a swarm: TCP whose weather changes by command.

One JSON object a line on standard input, answered with one line each:
{"listen": "HOST:PORT", "to": "HOST:PORT", "group": NAME}       one more port, in a group
{"group": NAME, "weather": {...}}                                of a group, from now on; see `Weather`
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field

PIECE_BYTES = 1 << 14
PIECES = 64
"""Under way in one direction of a connection; more wait in the sender's kernel."""


@dataclass(frozen=True)
class Weather:
    """Args:
    cut: nothing passes, and nothing is lost, as on a cable that is pulled for a while.
    delay_s: each piece comes so much later.
    bytes_per_s: of both directions of the group together; 0: as fast as it goes.
    torn: of each connection half a piece still passes, then it breaks.
    deaf: what servers answer is swallowed, on the connections that there are and on new ones.
    """

    cut: bool = False
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    torn: bool = False
    deaf: bool = False


@dataclass
class Group:
    weather: Weather = Weather()
    clear: asyncio.Event = field(default_factory=asyncio.Event)
    free_at: float = 0.0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def change(self, weather: Weather) -> None:
        was, self.weather = self.weather, weather
        (self.clear.clear if weather.cut else self.clear.set)()
        if was.deaf and not weather.deaf:
            for writer in self.writers:  # what was swallowed is missing: no stream goes on behind that
                writer.transport.abort()

    def due(self, count: int) -> float:
        """When so many bytes that come now have passed, in the loop's time."""
        now = asyncio.get_running_loop().time()
        if not self.weather.bytes_per_s:
            return now + self.weather.delay_s
        self.free_at = max(self.free_at, now) + count / self.weather.bytes_per_s
        return self.free_at + self.weather.delay_s


class Relay:
    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._servers: list[asyncio.Server] = []

    async def obey(self, command: dict[str, str | dict[str, float]]) -> None:
        group = self._groups.setdefault(str(command["group"]), Group())
        weather = command.get("weather", {})
        assert isinstance(weather, dict)
        group.change(Weather(**weather))  # type: ignore[arg-type]
        if "listen" in command:
            host, _, port = str(command["listen"]).rpartition(":")
            to = str(command["to"])
            self._servers.append(
                await asyncio.start_server(lambda r, w: self._serve(r, w, to, group), host, int(port), backlog=1024)
            )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: str, group: Group) -> None:
        host, _, port = to.rpartition(":")
        try:
            await group.clear.wait()
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()  # as where nobody listens
            return
        group.writers |= {writer, back}
        pumps = [asyncio.ensure_future(_pump(*ways, group)) for ways in ((reader, back, False), (there, writer, True))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            group.writers -= {writer, back}
            for end in (writer, back):
                end.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool, group: Group) -> None:
    """One direction, until either end is gone."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)
    writing = asyncio.ensure_future(_write(under_way, writer, group))
    reading = asyncio.ensure_future(_read(reader, under_way, answers, group))
    try:
        await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
        if not writing.done():
            await writing  # what was read before the end
    finally:
        for task in (reading, writing):
            task.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]], answers: bool, group: Group) -> None:
    """Each piece, with when it is due; an empty one at the end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(PIECE_BYTES):
            if group.weather.torn:
                await under_way.put((group.due(0), data[: len(data) // 2]))
                break
            if not (answers and group.weather.deaf):
                await under_way.put((group.due(len(data)), data))
    await under_way.put((group.due(0), b""))


async def _write(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, group: Group) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while True:
            due, data = await under_way.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            await group.clear.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()


async def main() -> None:
    relay, loop = Relay(), asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        await relay.obey(json.loads(line))
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
