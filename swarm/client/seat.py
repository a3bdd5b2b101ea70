"""Where one Session is: on which Route, over which streams, and what it leaves behind when it goes elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Protocol

from swarm.client.farewell import Farewell
from swarm.client.pace import Pace
from swarm.client.plan_source import PlanSource
from swarm.client.room import RoomSearch
from swarm.client.route import RouteStreams
from swarm.client.route_choice import home_of, left_behind, workers_of
from swarm.client.routes import Routes
from swarm.errors import Lost, StepError
from swarm.plan import Plan, Route


class Swarm(Protocol):
    """What a Session needs of its client."""

    plan: Plan
    source: PlanSource
    pace: Pace

    def notify(self, message: str) -> None: ...

    async def routes(self) -> Routes: ...

    def later(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Do something that nobody waits for, for as long as the client is there."""
        ...


class Seat:
    """A Session's place on a Route. It stays there; after a loss it may be taken on another Route of the same Plan.

    Args:
        session: its name.
    """

    def __init__(self, swarm: Swarm, session: bytes) -> None:
        self.streams: RouteStreams | None = None
        """None where the Session has to be opened before it is used again."""
        self._swarm = swarm
        self._session = session
        self._routes: Routes | None = None
        """Those that were asked last."""
        self._home: Route | None = None
        """Where its KV is."""
        self._open_in = 0
        """The epoch under which it was open last."""
        self._farewell = Farewell(swarm, session)

    @property
    def plan(self) -> Plan | None:
        """The Plan that was asked last; None: none was."""
        return self._routes.plan if self._routes else None

    async def take(self, positions: int, hashes: Sequence[int], queued: Callable[[int], None]) -> tuple[RouteStreams, int]:
        """Open the Session where there is room; the streams, and how many positions are held there already.

        Raises:
            SwarmError: see `RoomSearch.find` and `Swarm.routes`.
        """
        await self._farewell.settle()
        self._routes = routes = await self._swarm.routes()
        search = RoomSearch(routes, self._session, positions, hashes, self._open_in, queued)
        home = home_of(self._home, routes.plan)
        try:
            room = await search.find(routes.order(self._session, home))
        except BaseException:  # somebody cancelled, say: what was being opened may be open by now
            routes.forget(self._session)
            self._farewell.leave({w for r in search.asked if r != home for w in workers_of(routes.plan.routes[r])}, ())
            raise
        for lost in room.lost:
            self._report(lost)
        self._move(routes, room.streams, room.asked)
        return room.streams, room.held

    async def give_back(self) -> None:
        """Give the pages back; a Worker that does not answer in a moment is told later."""
        self.let_go()
        home, self._home, self._open_in = self._home, None, 0
        if home is not None:
            self._farewell.close(home)
        await self._farewell.told()

    def let_go(self) -> None:
        """Hear nothing more of its streams."""
        if self.streams is not None:
            self.streams.detach(self._session)
        self.streams = None

    def works(self) -> None:
        """All Stages of its Route answered."""
        if self._routes is not None and self.streams is not None:
            self._routes.found(self.streams.route)

    def rekeyed(self) -> bool:
        """Whether who was refused for its key has another one by now."""
        return self._routes is not None and self._routes.rekeyed()

    def elsewhere(self, error: StepError) -> bool:
        """Whether to go on at once over another Route, after a loss on this one."""
        if not isinstance(error, Lost) or self._routes is None or self.streams is None:
            return False
        if not self._routes.lost(self.streams.route):
            return False
        self._report(error)
        self._swarm.notify(f"{error}; continuing on another route")
        return True

    def _move(self, routes: Routes, to: RouteStreams, asked: Iterable[int]) -> None:
        """Be on a Route from now on; what others hold of the Session they give back."""
        plan, route = routes.plan, to.plan.routes[to.route]
        behind = left_behind(self._home, route, plan).union(*(left_behind(plan.routes[r], route, plan) for r in asked))
        self._farewell.leave(behind, workers_of(route))
        if self.streams is not None and self.streams is not to:
            self.streams.detach(self._session)
        self.streams, self._home, self._open_in = to, route, plan.epoch
        routes.settle(self._session, to.route)

    def _report(self, error: StepError) -> None:
        """Tell the swarm of a loss, without waiting for that."""
        self._swarm.later(self._swarm.source.report(self.plan.epoch if self.plan else 0, error.where, str(error)))
