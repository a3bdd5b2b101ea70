"""Another key for a Worker that runs: it admits who has either for a while, dials with the new one, and tells its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc.aio

from swarm.errors import Refused
from swarm.wire.admission import Admission
from swarm.wire.credentials import Credentials
from swarm.wire.revoking import Revoking
from swarm.wire.v1 import key_pb2 as pb
from swarm.worker.worker import Worker

FORGET_S = 60.0
"""How long a key that is offered is accepted when it is not used."""
MOST_S = 3600.0
KEY, SETTLED = "key", "settled"
"""What the owner is told on standard output: the first with the key behind it."""

Context = grpc.aio.ServicerContext[Any, Any]


class Rekeying(Revoking):
    """`KeyService` of a Worker.

    Args:
        say: takes a line for the Worker's owner; None: it has none, and keeps the key that it was started with.
    """

    def __init__(self, admission: Admission, credentials: Credentials, worker: Worker, say: Callable[[str], None] | None) -> None:
        super().__init__(admission)
        self._credentials, self._worker, self._say = credentials, worker, say
        self._offered = ""
        self._later: asyncio.Task[None] | None = None

    async def Rekey(self, request: pb.RekeyRequest, context: Context) -> pb.RekeyReply:
        if self._say is None:
            raise Refused(f"{self._worker.name} was started from a plan file: start it again with the new key", self._worker.name)
        if request.step == pb.REKEY_SETTLE:
            await self._settle(self._say)
            return pb.RekeyReply()
        Credentials(request.key).check_member()
        if not request.key or not 0 <= request.settle_s <= MOST_S:
            raise Refused(f"another key is none, or shall be settled in more than {MOST_S:.0f} s", self._worker.name)
        if self._offered not in ("", request.key):
            raise Refused("the key is being changed already: try again when that is over", self._worker.name)
        self._offered = request.key
        if request.step == pb.REKEY_ACCEPT:
            self._credentials.accept(request.key)
            self._do_later(FORGET_S, self._forget)
        else:
            self._use(request, self._say)
        return pb.RekeyReply()

    def _use(self, request: pb.RekeyRequest, say: Callable[[str], None]) -> None:
        self._credentials.use(request.key)
        self._worker.renew()
        say(f"{KEY} {request.key}")

        async def settle() -> None:
            await self._settle(say)

        self._do_later(request.settle_s, settle)

    async def _settle(self, say: Callable[[str], None]) -> None:
        self._offered = ""
        self._do_later(0, None)
        self._credentials.settle()
        await self._worker.peers.settle()
        say(SETTLED)

    async def _forget(self) -> None:
        self._offered = ""
        self._credentials.accept("")

    def _do_later(self, seconds: float, what: Callable[[], Any] | None) -> None:
        """In the place of what was to be done."""
        if self._later is not None and self._later is not asyncio.current_task():
            self._later.cancel()
        self._later = None if what is None else asyncio.get_running_loop().create_task(_after(seconds, what))


async def _after(seconds: float, what: Callable[[], Any]) -> None:
    await asyncio.sleep(seconds)
    await what()
