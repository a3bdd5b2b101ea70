"""Room for a Session on one of a Plan's Routes: the one that fits best, or the first that has some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarm.client.route import RouteStreams
from swarm.client.routes import Routes
from swarm.errors import Full, Lost, Moved, SwarmError

LEASE_S = 600.0
SILENT_S = 2.0
"""How long a Route may say nothing before the next one is asked as well."""
AGAIN_S = 1.0
"""How often a Route that is lost, or has no Plan yet, is tried again while the Session waits for room on others."""


@dataclass(frozen=True)
class _Queued:
    route: int
    place: int


@dataclass(frozen=True)
class _Opened:
    route: int
    streams: RouteStreams
    held: int


@dataclass(frozen=True)
class _Failed:
    route: int
    error: SwarmError


@dataclass(frozen=True)
class Room:
    """A Session's positions, reserved on every Stage of one Route."""

    streams: RouteStreams
    held: int
    """Positions that all of these Stages hold already."""
    asked: tuple[int, ...]
    """All Routes that were asked and did not fail: they may have reserved it too."""
    lost: tuple[Lost, ...]
    """Why others were not."""


class RoomSearch:
    """Asks one Route; where that is full, silent or lost, the next one as well. The first that opens has it.

    Args:
        session: its name.
        positions: to reserve.
        hashes: of its prefixes, see `RouteStreams.open`.
        open_in: the epoch under which it was open before; 0: it is new.
        queued: told the best of its places, where it waits on all Routes; 0: it is held back, see `RouteStreams.open`.
    """

    def __init__(
        self, routes: Routes, session: bytes, positions: int, hashes: Sequence[int], open_in: int, queued: Callable[[int], None]
    ) -> None:
        self._routes = routes
        self._session = session
        self._positions = positions
        self._hashes = hashes
        self._open_in = open_in
        self._queued = queued
        self._news: asyncio.Queue[_Queued | _Opened | _Failed] = asyncio.Queue()
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._asked: set[int] = set()
        self._places: dict[int, int] = {}
        self._failed: dict[int, SwarmError] = {}

    async def find(self, order: Sequence[int]) -> Room:
        """Ask the Routes in that order. Raises what `RouteStreams.open` does, where none can have room."""
        left = list(order)
        try:
            self._ask(left.pop(0))
            while True:
                news = await self._next(SILENT_S if left else AGAIN_S)
                if isinstance(news, _Opened):
                    return self._room(news)
                if isinstance(news, _Failed):
                    self._note(news)
                elif isinstance(news, _Queued):
                    self._places[news.route] = news.place
                if left:
                    self._ask(left.pop(0))
                elif not self._asking:
                    raise self._worst()
                elif news is None:
                    self._ask_again()
                else:
                    self._tell()
        finally:
            for task in self._asking.values():
                task.cancel()
            await asyncio.gather(*self._asking.values(), return_exceptions=True)
            # An error knows the calls that raised it, and so this one: closed streams would stay with it, and their sockets.
            news = None
            self._failed.clear()

    async def _next(self, seconds: float) -> _Queued | _Opened | _Failed | None:
        try:
            async with asyncio.timeout(seconds):
                return await self._news.get()
        except TimeoutError:
            for task in self._asking.values():
                if task.done():
                    task.result()  # raises what only our own bug can be
            return None

    def _room(self, news: _Opened) -> Room:
        lost = tuple(error for error in self._failed.values() if isinstance(error, Lost))
        return Room(news.streams, news.held, self.asked, lost)

    @property
    def asked(self) -> tuple[int, ...]:
        """The Routes that were asked: their Workers may have reserved the Session by now, of one that failed some."""
        return tuple(self._asked)

    def _ask(self, route: int) -> None:
        self._asked.add(route)
        self._asking[route] = asyncio.get_running_loop().create_task(self._open(route))

    async def _open(self, route: int) -> None:
        def queued(place: int) -> None:
            if place:
                self._news.put_nowait(_Queued(route, place))
            else:  # on all Routes of the Plan
                self._queued(0)

        try:
            streams = await self._routes.streams(route)
            held = await streams.open(self._session, self._positions, LEASE_S, self._hashes, queued, self._open_in)
        except SwarmError as error:
            self._news.put_nowait(_Failed(route, error))
        else:
            self._news.put_nowait(_Opened(route, streams, held))

    def _note(self, news: _Failed) -> None:
        """A Route that cannot have it now. Raises what no Route would answer otherwise."""
        if not isinstance(news.error, (Lost, Moved, Full)):
            raise news.error
        self._asking.pop(news.route)
        self._places.pop(news.route, None)
        self._failed[news.route] = news.error
        if isinstance(news.error, Lost):
            self._routes.lost(news.route)

    def _worst(self) -> SwarmError:
        """What to tell where all Routes failed: that the Plan changed, before that a Worker is gone, before that all is full."""
        kinds = (Moved, Lost, Full)
        return min(self._failed.values(), key=lambda e: next(i for i, kind in enumerate(kinds) if isinstance(e, kind)))

    def _ask_again(self) -> None:
        """Ask those that may be back; a Worker that was started again says Moved until it has loaded its part."""
        for route in [r for r, error in self._failed.items() if isinstance(error, (Lost, Moved))]:
            del self._failed[route]
            self._ask(route)

    def _tell(self) -> None:
        if self._places.keys() == self._asking.keys():
            self._queued(min(self._places.values()))
