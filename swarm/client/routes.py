"""The Routes of one Plan as a client uses them: streams to each, which of them failed, and which Session is where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable

import grpc.aio

from swarm.client.route import CLOSE_S, RouteStreams
from swarm.client.route_choice import route_order
from swarm.errors import Lost, StepError
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub

AVOID_S = 10.0
"""How long a Route on which a Worker was lost is tried after all others."""


class Routes:
    """Streams are opened when a Route is first used, and anew where they broke.

    Args:
        plan: the Plan that they are for.
        client: 16 bytes that name this client to the last Workers.
    """

    def __init__(self, plan: Plan, credentials: Credentials, client: bytes) -> None:
        self.plan = plan
        self._credentials = credentials
        self._key = credentials.key
        self._client = client
        self._streams: dict[int, RouteStreams] = {}
        self._connecting = [asyncio.Lock() for _ in plan.routes]
        self._at: dict[bytes, int] = {}
        """Session → the Route that it is on, or tries first."""
        self._lost_at: dict[int, float] = {}
        self._over: StepError | None = None
        self._ended = asyncio.Event()

    async def streams(self, route: int) -> RouteStreams:
        """The streams to a Route. Raises StepError, see `RouteStreams.start`; Moved where this Plan is over."""
        async with self._connecting[route]:
            old = self._streams.get(route)
            if self._over is not None:
                raise self._over
            if old is not None and old.broken is None:
                return old
            if old is not None:
                await old.close()
            new = RouteStreams(self.plan, route, self._credentials, self._client)
            try:
                await self._unless_over(new.start())
                if self._over is not None:  # since it started
                    raise self._over
            except BaseException:  # whoever is cancelled meanwhile leaves no stream open either
                await new.close()
                raise
            self._streams[route] = new
            return new

    def order(self, session: bytes, home: int | None) -> list[int]:
        """In which order to try the Routes for a Session, which counts as on the first of them from now on."""
        self.forget(session)
        sessions = [list(self._at.values()).count(route) for route in range(len(self.plan.routes))]
        turn = int.from_bytes(self._client, "big") % len(self.plan.routes)
        order = route_order(sessions, self._known_lost(), home, turn)
        self.settle(session, order[0])
        return order

    def settle(self, session: bytes, route: int) -> None:
        """The Session is on that Route."""
        self._at[session] = route

    def forget(self, session: bytes) -> None:
        """The Session is on none."""
        self._at.pop(session, None)

    def lost(self, route: int) -> bool:
        """A Worker of that Route was lost. Whether there is another Route of which nothing like that is known."""
        self._lost_at[route] = time.monotonic()
        return len(self._known_lost()) < len(self.plan.routes)

    def found(self, route: int) -> None:
        """All Stages of that Route answered."""
        self._lost_at.pop(route, None)

    def rekeyed(self) -> bool:
        """Whether the swarm's key is another one by now, as far as is known here: who asks for Routes anew may be let in."""
        return self._credentials.renew() or self._key != self._credentials.key

    async def release(self, session: bytes, workers: Iterable[str]) -> set[str]:
        """Give back what these Workers hold of a Session that goes on without them; those that did not answer."""
        names = list(workers)
        told = await asyncio.gather(*(self._release_at(session, name) for name in names))
        return {name for name, knows in zip(names, told, strict=True) if not knows}

    async def close(self, why: StepError | None = None) -> None:
        """End all streams; Sessions that wait on them hear why."""
        self._over = why or Lost("the connection was closed")
        self._ended.set()
        for streams in list(self._streams.values()):
            await streams.close(why)

    async def _unless_over(self, starting: Coroutine[object, object, None]) -> None:
        """Nobody waits for streams to a Worker that is gone once a newer Plan is there. Raises what `close` was told, too."""
        tasks = [asyncio.ensure_future(starting), asyncio.ensure_future(self._ended.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._over is not None:
                raise self._over
            tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tasks.clear()  # one knows the error that knows this call: closed streams would stay until Python looks for circles

    def _known_lost(self) -> set[int]:
        now = time.monotonic()
        return {route for route, at in self._lost_at.items() if now - at < AVOID_S}

    async def _release_at(self, session: bytes, name: str) -> bool:
        channel = self._credentials.channel(self.plan.worker(name).address)
        request = pb.CloseRequest(session=session, epoch=self.plan.epoch, route=self.plan.route_of(name))
        try:
            await StageServiceStub(channel).Release(request, timeout=CLOSE_S)
        except grpc.aio.AioRpcError:
            return False
        else:
            return True
        finally:
            await channel.close(None)
