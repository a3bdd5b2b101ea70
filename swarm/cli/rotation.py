"""Another key for a swarm that runs: told to its Workers over what the old one protects, and through them to the rigs.

All that answer admit both keys first; then they use the new one, the head's before the others'; once their rigs are in again,
nobody admits the old one. Where this process ends in between they settle by themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio

from swarm.cli.rigs_noted import RigAt, rigs_of
from swarm.errors import Refused, SwarmError
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.status_document import read_status
from swarm.wire.v1 import key_pb2 as pb
from swarm.wire.v1 import swarm_pb2
from swarm.wire.v1.key_pb2_grpc import KeyServiceStub
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

ANSWER_S = 15.0
BACK_S = 180.0
"""How long rigs may take to be in again before the old key is refused all the same; Workers refuse it then by themselves."""
POLL_S = 0.5


@dataclass(frozen=True)
class Rotated:
    """By name: rigs that use the new key, those that are here and were left out or did not answer, and of the first, those that are
    not in again yet, and those that did not hear that the old key is over: they refuse it by themselves, within `BACK_S`.
    """

    rigs: list[str]
    without: list[str]
    missing: list[str]
    later: list[str]


class Rotation:
    """Gives the swarm at an address (host:port) the key `new`.

    Args:
        tell: takes what people should know.
    """

    def __init__(self, address: str, old: str, new: str, tell: Callable[[str], None]) -> None:
        self._address, self._new, self._tell = address, new, tell
        self._before, self._after = Credentials(old), Credentials(new)
        self._refused = ""
        """What a Worker answered that takes no other key now."""

    async def run(self, without: Collection[str]) -> Rotated:
        """Do it. Raises SwarmError where nothing was changed.

        Args:
            without: names of rigs that shall not have it.
        """
        document = await self._status(self._before)
        rigs, head = rigs_of(document), _head(document)
        _check_names(without, rigs, head)
        told = await self._tell_rigs([rig for rig in rigs if rig.name not in without], pb.REKEY_ACCEPT)
        if head not in {rig.name for rig in told}:
            why = self._refused or f"no worker of the head {head} answers: look at `swarm status`"
            raise SwarmError(f"nothing was changed, for {why}")
        for rig in document.get("rigs", ()):
            if rig["name"] in without:
                await self._leave(rig["id"])
        using = await self._tell_rigs([rig for rig in told if rig.name == head], pb.REKEY_USE)
        if not using:
            left = f"; {', '.join(without)} left the swarm all the same" if without else ""
            raise SwarmError(f"no worker of the head {head} answers any more, so that the key was not changed{left}: try again")
        using += await self._tell_rigs([rig for rig in told if rig.name != head], pb.REKEY_USE)
        self._tell("Ray is started again, since it cannot change its key: chats go on; joining and new chats wait for it")
        missing = await self._until_back({rig.name for rig in using})
        settled = {rig.name for rig in await self._tell_rigs(using, pb.REKEY_SETTLE)}
        names = [rig.name for rig in using]
        return Rotated(names, [rig.name for rig in rigs if rig.name not in names], missing, [n for n in names if n not in settled])

    async def _leave(self, rig_id: str) -> None:
        """Have a rig's Blocks moved to the others: it shall not be talked to any more."""
        said = ""
        async with self._before.channel(self._address) as channel:
            try:
                async for progress in SwarmServiceStub(channel).Leave(swarm_pb2.LeaveRequest(rig_id=rig_id)):
                    if (what := progress.message.partition(":")[0]) != said:
                        self._tell(said := what)
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error, f"the swarm at {self._address}") from None

    async def _tell_rigs(self, rigs: Sequence[RigAt], step: pb.RekeyStep) -> list[RigAt]:
        """All at once; those of which any Worker heard. The others are started with the new key when they are started next."""
        addresses = [address for rig in rigs for address in rig.workers]
        heard = await asyncio.gather(*(self._tell_worker(address, step) for address in addresses))
        answered = {address for address, did in zip(addresses, heard, strict=True) if did}
        return [rig for rig in rigs if answered.intersection(rig.workers)]

    async def _tell_worker(self, address: str, step: pb.RekeyStep) -> bool:
        credentials = self._after if step == pb.REKEY_SETTLE else self._before
        request = pb.RekeyRequest(step=step, key="" if step == pb.REKEY_SETTLE else self._new, settle_s=BACK_S)
        async with credentials.channel(address) as channel:
            try:
                await KeyServiceStub(channel).Rekey(request, timeout=ANSWER_S)
            except grpc.aio.AioRpcError as error:
                meant = from_rpc(error, f"the worker at {address}")
                if isinstance(meant, Refused):
                    self._refused = str(meant)
                if step != pb.REKEY_SETTLE:
                    self._tell(str(meant))
                return False
        return True

    async def _until_back(self, rigs: set[str]) -> list[str]:
        """Wait until they are all in with the new key; those that are not in time."""
        missing, deadline = rigs, time.monotonic() + BACK_S - ANSWER_S
        while missing and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            try:
                missing = rigs - {rig["name"] for rig in (await self._status(self._after)).get("rigs", ())}
            except SwarmError:
                continue  # its door is not open again
        return sorted(missing)

    async def _status(self, credentials: Credentials) -> dict[str, Any]:
        async with credentials.channel(self._address) as channel:
            try:
                reply = await SwarmServiceStub(channel).GetStatus(swarm_pb2.StatusRequest(), timeout=ANSWER_S)
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error, f"the swarm at {self._address}") from None
        return read_status(reply.json, f"the swarm at {self._address}")


def _head(document: Mapping[str, Any]) -> str:
    """The head's name."""
    return next((str(rig["name"]) for rig in document.get("rigs", ()) if rig["id"] == document.get("head")), "")


def _check_names(without: Iterable[str], rigs: Iterable[RigAt], head: str) -> None:
    """Raise SwarmError where a rig is not there, or cannot be left out."""
    known = {rig.name for rig in rigs}
    for name in without:
        if name not in known:
            raise SwarmError(f"no rig {name} is in the swarm, so that nothing was changed: it has {', '.join(sorted(known))}")
        if name == head:
            raise SwarmError(f"{name} heads the swarm and cannot be left out: nothing was changed")
