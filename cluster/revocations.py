"""The door's list of invitations that were called back: kept in a file, and told to every Worker."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc.aio

from swarm.wire.admission import Admission
from swarm.wire.credentials import Credentials
from swarm.wire.revoking import NUMBER_BYTES, numbers_of, request_for
from swarm.wire.v1 import key_pb2 as pb
from swarm.wire.v1.key_pb2_grpc import KeyServiceServicer, KeyServiceStub

TELL_S = 5.0
"""How often all Workers are told, while there is anything to tell: one that was started anew has forgotten."""
ANSWER_S = 2.0

Context = grpc.aio.ServicerContext[Any, Any]


class Revocations(KeyServiceServicer):
    """`KeyService` of the door.

    Args:
        admission: of the door's own server.
        credentials: for telling Workers.
        path: where the list is kept, over restarts of the swarm too.
        workers: where the Workers of now listen.
    """

    def __init__(self, admission: Admission, credentials: Credentials, path: Path, workers: Callable[[], Iterable[str]]) -> None:
        self._admission, self._credentials, self._path, self._workers = admission, credentials, path, workers
        self._channels: dict[str, grpc.aio.Channel] = {}
        admission.revoke(_read(path))

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeReply:
        self._admission.revoke(numbers_of(request))  # what is refused, the server's guard tells
        self._keep()
        return pb.RevokeReply(silent=await self._tell_all())

    async def run(self) -> None:
        """Tell Workers again and again, until cancelled."""
        try:
            while True:
                await asyncio.sleep(TELL_S)
                if self._admission.revoked:
                    await self._tell_all()
        finally:
            for channel in self._channels.values():
                await channel.close(None)

    async def _tell_all(self) -> list[str]:
        """The addresses of those that did not answer."""
        addresses = sorted(set(self._workers()))
        for gone in self._channels.keys() - set(addresses):
            await self._channels.pop(gone).close(None)
        heard = await asyncio.gather(*(self._tell(address) for address in addresses))
        return [address for address, told in zip(addresses, heard, strict=True) if not told]

    async def _tell(self, address: str) -> bool:
        if address not in self._channels:
            self._channels[address] = self._credentials.channel(address)
        try:
            await KeyServiceStub(self._channels[address]).Revoke(request_for(self._admission.revoked), timeout=ANSWER_S)
        except grpc.aio.AioRpcError:
            return False
        return True

    def _keep(self) -> None:
        try:
            fresh = self._path.with_name(f"{self._path.name}.new")
            fresh.write_text(json.dumps([f"{number:x}" for number in sorted(self._admission.revoked)]), encoding="utf-8")
            fresh.replace(self._path)
        except OSError as error:
            print(f"{self._path} cannot be written ({error.strerror}): a restart forgets who was shut out", file=sys.stderr)


def _read(path: Path) -> frozenset[int]:
    """What was kept; nothing where there is nothing, or nothing that can be read."""
    try:
        found = frozenset(int(text, 16) for text in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return frozenset()
    return found if all(0 <= number < 256**NUMBER_BYTES for number in found) else frozenset()
