"""Opening a Session: its positions are reserved on every Stage of the Route, or on none.

The entry Worker asks all Stages at once. Where one has no room now the Session waits, first come first served, and is
told its place; where there never could be room it is refused with the sum.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing

import grpc.aio

from swarm.errors import NoSwarm, Refused, TooLong
from swarm.lost import called, lost
from swarm.plan import Plan
from swarm.too_long import remedy
from swarm.wire.status import from_rpc, silence
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub
from swarm.worker.callers import Caller
from swarm.worker.epoch import Epoch, Epochs
from swarm.worker.peers import Peers
from swarm.worker.turns import Turn, Turns

RETRY_S = 1.0
"""How often the first in the queue asks again; pages given back here wake it at once."""
TELL_S = 1.0
"""How often the others look at their place: a thousand that were told at every change would be all that a Worker does."""
CALL_S = 5.0
MOST_LEASE_S = 3600.0
MOST_SESSIONS = 2**31


def reserve_here(epochs: Epochs, request: pb.OpenRequest, name: str, owner: Caller | None = None) -> pb.ReserveReply:
    """Reserve a Session's positions on this Stage.

    Args:
        owner: the client, where this is the entry Stage.

    Raises:
        Moved: the epoch is not served here.
        TooLong: more positions than the Plan has for a Session, or than there are pages.
        Refused: malformed, or of another model or Route.
    """
    epoch = epochs.serving(request.epoch, request.model_id)
    if request.route != epoch.route or epoch.model is None:
        raise Refused(f"route {request.route} does not lead here", name)
    if len(request.session) != 16 or not 0 < request.lease_s <= MOST_LEASE_S:
        raise Refused(f"a session is named by 16 bytes and has a lease of up to {MOST_LEASE_S:.0f} s", name)
    if not 0 < request.positions <= epoch.plan.context:
        what_to_do = remedy(epoch.plan, "shorten the prompt or the answer")
        raise TooLong(f"{request.positions} positions were asked for, {what_to_do}", name)
    held = epoch.pool.open_session(
        request.session, request.positions, request.prefix_hashes, epoch.blocks, request.lease_s, time.monotonic()
    )
    if held is None:
        return pb.ReserveReply(full=True)
    epoch.pool.table.find(request.session).owner = owner
    return pb.ReserveReply(held=held)


class Opening:
    """The queue of Sessions that want to open on the Route that begins here."""

    def __init__(self, name: str, epochs: Epochs, peers: Peers) -> None:
        self._name = name
        self._epochs = epochs
        self._peers = peers
        self.turns = Turns(name)
        self._wanted: Counter[bytes] = Counter()
        """Sessions that are being opened, or wait for room."""
        self._afterwards: set[asyncio.Task[None]] = set()
        """Pages being given back on other Workers, whether or not who closed them still waits for that."""

    def freed(self) -> None:
        """KV pages were given back: the first in the queue may try again."""
        self.turns.wake_first()

    async def open(self, request: pb.OpenRequest, caller: Caller) -> AsyncIterator[pb.OpenReply]:
        """HELD_BACK where it waits for others, QUEUED with the place as often as it changes, then OPENED.

        Raises what `reserve_here` does, Full and Lost.
        """
        opened = self._opened(caller)
        with caller.session(request.session, opened, epoch.plan.sessions if (epoch := self._epochs.current) else 0):
            has = len((opened | caller.opening) - {request.session})
            turn = self.turns.come(caller, has, request.open_in, self._epochs.get(request.epoch), time.monotonic())
            self._wanted[request.session] += 1
            try:
                async with aclosing(self._open(request, turn)) as replies:
                    async for reply in replies:
                        yield reply
            finally:
                self._wanted -= Counter((request.session,))

    async def _open(self, request: pb.OpenRequest, turn: Turn) -> AsyncGenerator[pb.OpenReply, None]:
        # Nobody waits before it: there may be room for all who come now. Or back after a loss: those who wait want its pages, too.
        if self._is_next(turn) or self._is_open(request.session):
            if (held := await self._reserve_all(request, turn)) is not None:
                yield pb.OpenReply(state=pb.OpenReply.OPENED, held=held)
                return
            self.freed()  # two who came together may have stood in each other's way
        self.turns.enter(turn)
        told = 0
        try:
            if time.monotonic() < turn.earliest:
                yield pb.OpenReply(state=pb.OpenReply.HELD_BACK)
            while True:
                if self._is_next(turn) and (held := await self._reserve_all(request, turn)) is not None:
                    yield pb.OpenReply(state=pb.OpenReply.OPENED, held=held)
                    return
                place, held_back_s = self.turns.place(turn), turn.earliest - time.monotonic()
                if held_back_s <= 0 and place + 1 != told:
                    told = place + 1
                    yield pb.OpenReply(state=pb.OpenReply.QUEUED, place=told)
                await self._wait(turn.woken, held_back_s if held_back_s > 0 else TELL_S if place else RETRY_S)
        finally:
            self.turns.leave(turn)

    async def close(self, request: pb.CloseRequest) -> None:
        """Release a Session on every Stage; a Worker that cannot be reached asks for it later, see `Forgotten`.

        Raises:
            Refused: another Route. Moved: no epoch serves here, so that the other Stages are not known.
        """
        self._check_route(request)
        if (epoch := self._epochs.get(request.epoch) or self._epochs.current) is None:
            raise self._epochs.moved()
        await asyncio.shield(self._close_soon(epoch, request))  # who waits no longer for that has said that it is over

    def wants(self, session: bytes) -> bool:
        """Whether somebody is opening that Session, or waits for room for it."""
        return session in self._wanted

    def _close_soon(self, epoch: Epoch, request: pb.CloseRequest) -> asyncio.Task[None]:
        self._afterwards.add(task := asyncio.get_running_loop().create_task(self._close(epoch, request)))
        task.add_done_callback(self._afterwards.discard)
        return task

    async def _close(self, epoch: Epoch, request: pb.CloseRequest) -> None:
        await self._release_all(epoch, request)
        self.freed()

    def take_back(self, now: float) -> None:
        """Close the Sessions whose lease is over: on all Stages where they were opened here."""
        share = self._share()
        for pool in self._epochs.pools():
            pool.table.shorten(now, share)
            for session in pool.table.expired(now):
                pool.close_session(session.id)
                self.freed()
                if session.owner is not None and (epoch := self._epochs.current) is not None:
                    self._close_soon(epoch, pb.CloseRequest(session=session.id, epoch=epoch.number, route=epoch.route))

    def _share(self) -> int:
        """How many Sessions a client that is gone keeps as long as may be: all where nobody waits, else its part of the Plan's."""
        if not (waiting := self.turns.callers()) or (epoch := self._epochs.current) is None:
            return MOST_SESSIONS
        clients = waiting | {s.owner for pool in self._epochs.pools() for s in pool.table.all() if s.owner is not None}
        return max(1, epoch.plan.sessions // len(clients))

    def release_here(self, request: pb.CloseRequest) -> None:
        """Give a Session's pages on this Stage back, under whichever epoch it was opened. Raises Refused."""
        self._check_route(request)
        for pool in self._epochs.pools():
            pool.close_session(request.session)

    def _check_route(self, request: pb.CloseRequest) -> None:
        epoch = self._epochs.get(request.epoch)
        if epoch is not None and request.route != epoch.route:
            raise Refused(f"route {request.route} does not lead here", self._name)

    def _opened(self, caller: Caller) -> set[bytes]:
        return {session for pool in self._epochs.pools() for session in pool.table.of(caller)}

    def _is_next(self, turn: Turn) -> bool:
        return self.turns.place(turn) == 0 and time.monotonic() >= turn.earliest

    def _is_open(self, session: bytes) -> bool:
        return any(pool.table.get(session) is not None for pool in self._epochs.pools())

    @staticmethod
    async def _wait(woken: asyncio.Event, most_s: float) -> None:
        try:
            async with asyncio.timeout(most_s):  # not wait_for: 3.11's swallows a cancellation that comes with the result
                await woken.wait()
        except TimeoutError:
            return
        woken.clear()

    async def _reserve_all(self, request: pb.OpenRequest, turn: Turn) -> int | None:
        """Positions that every Stage holds already, or None where one has no room now.

        Who must wait holds nothing meanwhile, on any Stage: two that each wait for what the other holds would wait for ever.
        """
        try:
            if (held := await self._try_all(request, turn.caller)) is not None:
                self.turns.served(turn)
            return held
        except asyncio.CancelledError:  # the client is gone: nobody will use what was reserved
            if (epoch := self._epochs.get(request.epoch) or self._epochs.current) is not None:
                self._close_soon(epoch, _closing(request))
            raise

    async def _try_all(self, request: pb.OpenRequest, caller: Caller) -> int | None:
        here = reserve_here(self._epochs, request, self._name, caller)
        epoch = self._epochs.serving(request.epoch, request.model_id)
        others = [self._call(epoch.plan, name, stub.Reserve(request, timeout=CALL_S)) for name, stub in self._others(epoch)]
        replies = [here, *await asyncio.gather(*others, return_exceptions=True)]
        failures = [r for r in replies if isinstance(r, BaseException)]
        given = [r for r in replies if isinstance(r, pb.ReserveReply)]
        if failures:
            if not any(r.held for r in given):  # one that holds something was open before: it keeps what it has
                await self._release_all(epoch, _closing(request))
            if isinstance(failures[0], asyncio.CancelledError):  # the channel was closed: the Plan has that Worker no more
                raise self._epochs.moved()
            raise failures[0]
        if any(r.full for r in given):
            await self._release_all(epoch, _closing(request))
            return None
        held = dict(zip([self._name, *(name for name, _ in self._others(epoch))], (r.held for r in given), strict=True))
        epoch.pool.table.find(request.session).ahead = tuple(held[s.worker] for s in epoch.plan.routes[epoch.route].stages)
        return min(held.values())

    async def _release_all(self, epoch: Epoch, request: pb.CloseRequest) -> None:
        calls = [self._call(epoch.plan, name, stub.Release(request, timeout=CALL_S)) for name, stub in self._others(epoch)]
        self.release_here(request)
        await asyncio.gather(*calls, return_exceptions=True)

    def _others(self, epoch: Epoch) -> list[tuple[str, StageServiceStub]]:
        route = epoch.plan.routes[epoch.route]
        names = [s.worker for s in route.stages if s.worker != self._name]
        return [(name, self._peers.stub(epoch.plan.worker(name).address)) for name in names]

    async def _call(self, plan: Plan, name: str, call: Awaitable[pb.ReserveReply]) -> pb.ReserveReply:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            meant = from_rpc(error, called(plan, name))
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED or isinstance(meant, NoSwarm):
                raise lost(plan, name, silence(error)) from None
            raise meant from None


def _closing(request: pb.OpenRequest) -> pb.CloseRequest:
    return pb.CloseRequest(session=request.session, epoch=request.epoch, route=request.route)
