"""Sessions that nobody uses any more, and of which nobody could tell this Worker: it finds that out, and gives them back.

The entry Stage knows all Sessions of its Route, since they are opened there and given back there. Whoever told this Worker
of one may be gone (that entry was replaced, a call to close it was cut off or overtook the one that opened it), so each
other Stage asks the entry of the present epoch for those that are quiet. What is taken away by mistake costs a replay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import grpc.aio

from swarm.errors import Refused
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.callers import ABANDONED_S
from swarm.worker.epoch import Epoch, Epochs
from swarm.worker.opening import CALL_S, Opening
from swarm.worker.peers import Peers

QUIET_S = 5.0
"""Who lost its way to a Session's pages comes back within this time, or they are not asked for again here."""
AGAIN_S = 2.0
"""How often the entry is asked, at most."""
RETURN_S = ABANDONED_S
"""How long Sessions may take to be opened again after an epoch began: before that its entry calls none unknown."""


class Forgotten:
    """Looks for them, on one Worker."""

    def __init__(self, name: str, epochs: Epochs, opening: Opening, peers: Peers) -> None:
        self._name = name
        self._epochs = epochs
        self._opening = opening
        self._peers = peers
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    def look(self, now: float) -> None:
        """Give back what is quiet and not known, or begin to ask for it."""
        epoch = self._epochs.current
        if epoch is None or epoch.model is None or now - self._asked_at < AGAIN_S or (self._asking and not self._asking.done()):
            return
        if not (quiet := [s.id for s in epoch.pool.table.quiet(now - QUIET_S)]):
            return
        self._asked_at = now
        if epoch.is_first:
            self._give_back(epoch, self._unknown(epoch, quiet, now), now)
        else:
            self._asking = asyncio.get_running_loop().create_task(self._ask(epoch, quiet, now))

    def unknown(self, request: pb.SessionsRequest) -> pb.SessionsReply:
        """What another Stage is told. Raises Moved, or Refused where its Route does not begin here."""
        epoch = self._epochs.get(request.epoch)
        if epoch is None or not epoch.serving:
            raise self._epochs.moved()
        if not epoch.is_first or request.route != epoch.route:
            raise Refused(f"route {request.route} does not begin here", self._name)
        return pb.SessionsReply(sessions=self._unknown(epoch, request.sessions, time.monotonic()))

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _unknown(self, epoch: Epoch, sessions: Sequence[bytes], now: float) -> list[bytes]:
        if now - epoch.since < RETURN_S:
            return []
        return [s for s in sessions if not self._opening.wants(s) and not epoch.pool.table.is_owned(s)]

    async def _ask(self, epoch: Epoch, quiet: Sequence[bytes], now: float) -> None:
        route = epoch.plan.routes[epoch.route]
        stub = self._peers.stub(epoch.plan.worker(route.entry).address)
        request = pb.SessionsRequest(sessions=quiet, epoch=epoch.number, route=epoch.route)
        try:
            reply = await stub.Unknown(request, timeout=CALL_S)
        except grpc.aio.AioRpcError:
            return  # it is away, or serves another epoch: what is kept meanwhile is asked for later
        self._give_back(epoch, [s for s in reply.sessions if s in quiet], now)

    def _give_back(self, epoch: Epoch, sessions: Sequence[bytes], asked_at: float) -> None:
        """Unless somebody opened one anew meanwhile."""
        over = {s.id for s in epoch.pool.table.quiet(asked_at)}.intersection(sessions)
        for session in over:
            epoch.pool.close_session(session)
        if over:
            self._opening.freed()
