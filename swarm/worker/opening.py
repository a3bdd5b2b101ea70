"""Opening a Session: its positions are reserved on every Stage of the Route, or on none.

The entry Worker asks all Stages at once. Where one has no room now the Session waits, first come first served, and is
told its place; where there never could be room it is refused with the sum.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import grpc.aio

from swarm.errors import Full, Lost, Refused, TooLong
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub
from swarm.worker.epoch import Epoch, Epochs

QUEUE_LENGTH = 1024
RETRY_S = 1.0
"""How often the first in the queue asks again; pages given back here wake it at once."""
CALL_S = 10.0


class Peers:
    """Unary calls to the other Workers of a Plan, over one channel each."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stub(self, address: str) -> StageServiceStub:
        if address not in self._channels:
            self._channels[address] = self._credentials.channel(address)
        return StageServiceStub(self._channels[address])

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)


def reserve_here(epochs: Epochs, request: pb.OpenRequest, name: str) -> pb.ReserveReply:
    """Reserve a Session's positions on this Stage.

    Raises:
        Moved: the epoch is not served here.
        TooLong: more positions than the Plan has for a Session, or than there are pages.
        Refused: malformed.
    """
    epoch = epochs.serving(request.epoch, request.model_id)
    if len(request.session) != 16 or not 0 < request.lease_s <= 86_400:
        raise Refused("a session is named by 16 bytes and has a lease of up to a day", name)
    if not 0 < request.positions <= epoch.plan.context:
        raise TooLong(
            f"{request.positions} positions were asked for, the plan has {epoch.plan.context} a session: "
            "shorten the prompt or --max-tokens, or start the swarm with a larger --context",
            name,
        )
    table = epoch.pool.table
    before = table.get(request.session)
    if not epoch.cache.reserve(request.session, request.positions):
        return pb.ReserveReply(full=True)
    positions = max(request.positions, before.positions if before else 0)
    session = table.open(request.session, positions, request.lease_s, time.monotonic())
    held = min(session.held_over(epoch.blocks), session.common_prefix(request.prefix_hashes))
    return pb.ReserveReply(held=held)


class Opening:
    """The queue of Sessions that want to open on the Route that begins here."""

    def __init__(self, name: str, epochs: Epochs, credentials: Credentials) -> None:
        self._name = name
        self._epochs = epochs
        self.peers = Peers(credentials)
        self._queue: list[asyncio.Event] = []

    def freed(self) -> None:
        """KV pages were given back: the first in the queue may try again."""
        if self._queue:
            self._queue[0].set()

    async def open(self, request: pb.OpenRequest) -> AsyncIterator[pb.OpenReply]:
        """QUEUED with the place as often as it changes, then OPENED. Raises what `reserve_here` does, Full and Lost."""
        if len(self._queue) >= QUEUE_LENGTH:
            raise Full(f"{QUEUE_LENGTH} sessions wait already: try again later", self._name)
        turn = asyncio.Event()
        self._queue.append(turn)
        told = 0
        try:
            while True:
                place = self._queue.index(turn)
                if place == 0 and (held := await self._reserve_all(request)) is not None:
                    yield pb.OpenReply(state=pb.OpenReply.OPENED, held=held)
                    return
                if place + 1 != told:
                    told = place + 1
                    yield pb.OpenReply(state=pb.OpenReply.QUEUED, place=told)
                await self._wait(turn)
        finally:
            self._queue.remove(turn)
            self._wake_all()

    async def close(self, request: pb.CloseRequest) -> None:
        """Release a Session on every Stage; a Worker that cannot be reached lets its lease run out."""
        epoch = self._epochs.get(request.epoch)
        if epoch is not None:
            await self._release_all(epoch, request)

    def _wake_all(self) -> None:
        for turn in self._queue:
            turn.set()

    @staticmethod
    async def _wait(turn: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(turn.wait(), RETRY_S)
        except TimeoutError:
            return
        turn.clear()

    async def _reserve_all(self, request: pb.OpenRequest) -> int | None:
        """Positions that every Stage holds already, or None where one has no room now."""
        here = reserve_here(self._epochs, request, self._name)
        epoch = self._epochs.serving(request.epoch, request.model_id)
        others = [self._call(name, stub.Reserve(request, timeout=CALL_S)) for name, stub in self._others(epoch)]
        replies = [here, *await asyncio.gather(*others, return_exceptions=True)]
        failures = [r for r in replies if isinstance(r, BaseException)]
        given = [r for r in replies if isinstance(r, pb.ReserveReply)]
        if failures or any(r.full for r in given):
            if not any(r.held for r in given):  # one that holds something was open before: it keeps what it has
                await self._release_all(epoch, pb.CloseRequest(session=request.session, epoch=request.epoch, route=request.route))
            if failures:
                raise failures[0]
            return None
        return min(r.held for r in given)

    async def _release_all(self, epoch: Epoch, request: pb.CloseRequest) -> None:
        calls = [self._call(name, stub.Release(request, timeout=CALL_S)) for name, stub in self._others(epoch)]
        epoch.pool.close_session(request.session)
        await asyncio.gather(*calls, return_exceptions=True)
        self.freed()

    def _others(self, epoch: Epoch) -> list[tuple[str, StageServiceStub]]:
        route = epoch.plan.routes[epoch.route]
        names = [s.worker for s in route.stages if s.worker != self._name]
        return [(name, self.peers.stub(epoch.plan.worker(name).address)) for name in names]

    async def _call(self, name: str, call: Awaitable[pb.ReserveReply]) -> pb.ReserveReply:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise Lost(f"worker {name} does not answer") from None
            raise
