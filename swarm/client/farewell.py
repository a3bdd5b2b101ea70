"""What a Session leaves behind where it is no more: the Workers are told until they know, or until its lease is over there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Protocol

from swarm.client import room
from swarm.client.route import CLOSE_S
from swarm.client.route_choice import home_of, workers_of
from swarm.client.routes import Routes
from swarm.errors import NoSwarm, PlacementError, StepError, SwarmError
from swarm.plan import Route

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TRY_S = 5.0


class Client(Protocol):
    """What it needs of its client."""

    async def routes(self) -> Routes: ...

    def later(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]: ...


class Farewell:
    """Of one Session. A call that meets a change of Plan, or a Worker that is away, is made again.

    Args:
        session: its name.
    """

    def __init__(self, client: Client, session: bytes) -> None:
        self._client = client
        self._session = session
        self._home: Route | None = None
        """A Route on which it is over: all its Workers are told by the entry."""
        self._workers: set[str] = set()
        """Those that are told one by one, since the Session is on another Route."""
        self._enough = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def leave(self, workers: Iterable[str], there: Iterable[str]) -> None:
        """Tell these Workers, and whoever does not know yet, except those that are `there` on its Route."""
        self._workers = self._workers.union(workers).difference(there)
        self._tell_on()

    def close(self, home: Route) -> None:
        """Tell all Workers of its Route: the Session is over."""
        self._home = home
        self._tell_on()

    async def settle(self) -> None:
        """Before it is opened anew: who was told later would close that. Who does not know yet is told when it is open."""
        self._enough.set()
        if self._telling is not None:
            await asyncio.wait({self._telling})
        if self._home is not None:
            self._workers |= workers_of(self._home)
            self._home = None

    async def told(self) -> None:
        """Until all know, or for a moment: the others are told later."""
        self._tell_on()  # where it was to be opened anew, and was not
        if self._telling is not None:
            await asyncio.wait({self._telling}, timeout=CLOSE_S)

    def _tell_on(self) -> None:
        busy = self._telling is not None and not self._telling.done()
        if (self._home is not None or self._workers) and not busy:
            self._enough.clear()
            self._telling = self._client.later(self._until_told())

    async def _until_told(self) -> None:
        until, tries = time.monotonic() + room.LEASE_S, 0
        while (self._home is not None or self._workers) and time.monotonic() < until:
            try:
                async with asyncio.timeout(TRY_S):
                    await self._tell(await self._client.routes())
            except (StepError, NoSwarm, PlacementError, TimeoutError):
                pass  # it is told again
            except SwarmError:
                return  # another model, or another key: nothing of it is left that could be told
            if (self._home is None and not self._workers) or await self._is_enough(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)]):
                return
            tries += 1

    async def _tell(self, routes: Routes) -> None:
        """Whoever is in the Plan, at once. Raises what `Routes.streams` and `RouteStreams.release` do."""
        failed = await asyncio.gather(self._tell_home(routes), self._tell_workers(routes), return_exceptions=True)
        for error in failed:
            if error is not None:
                raise error

    async def _tell_home(self, routes: Routes) -> None:
        if self._home is None:
            return
        routes.forget(self._session)
        if (route := home_of(self._home, routes.plan)) is not None:
            await (await routes.streams(route)).release(self._session)
        self._home = None

    async def _tell_workers(self, routes: Routes) -> None:
        self._workers &= {worker.name for worker in routes.plan.workers}
        asked = set(self._workers)
        self._workers -= asked - await routes.release(self._session, asked)

    async def _is_enough(self, seconds: float) -> bool:
        """Whether nobody is to be told again, which comes within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._enough.wait()
        except TimeoutError:
            return False
        return True
