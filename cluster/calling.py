"""A head that came back at another address calls the Rigs that it had: their Workers are where they were."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import grpc.aio

from swarm.wire.credentials import Credentials
from swarm.wire.v1 import rig_pb2 as pb
from swarm.wire.v1.rig_pb2_grpc import RigServiceStub

EVERY_S = 2.0
FOR_S = 600.0
"""How long a Rig that does not come is called; one that comes later must be told by a person."""
ANSWER_S = 2.0


class Calling:
    """Keeps where the Workers of each Rig listen, in a file; calls those of Rigs that are not here yet.

    Whoever has another key hangs up at the handshake; a Rig that is well where it is does not listen to calls.

    Args:
        path: of the file.
        swarm: host:port of the door.
    """

    def __init__(self, credentials: Credentials, path: Path, swarm: str) -> None:
        self._credentials, self._path, self._swarm = credentials, path, swarm

    async def run(self, here: Callable[[], Mapping[str, list[str]]]) -> None:
        """Go on until cancelled.

        Args:
            here: the addresses (host:port) of the Workers of the Rigs that are here, by the Rig's id.
        """
        absent, before, began = self.noted(), None, time.monotonic()
        while True:
            present = dict(here())
            absent = {i: at for i, at in absent.items() if i not in present and time.monotonic() - began < FOR_S}
            await asyncio.gather(*(call(self._credentials, address, self._swarm) for at in absent.values() for address in at))
            if (known := absent | present) != before:
                self._write(known)
                before = known
            await asyncio.sleep(EVERY_S)

    def noted(self) -> dict[str, list[str]]:
        """By the Rig's id, where its Workers listened; empty where nothing was noted, or nothing that can be read."""
        try:
            raw = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(rig_id): [str(address) for address in at] for rig_id, at in raw.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}  # nobody is called

    def _write(self, known: Mapping[str, list[str]]) -> None:
        try:
            self._path.write_text(json.dumps(known), encoding="utf-8")
        except OSError as error:
            print(f"{self._path} cannot be written ({error.strerror}): a head elsewhere calls no rigs", file=sys.stderr)


async def call(credentials: Credentials, address: str, swarm: str = "") -> str:
    """Tell a Worker where its swarm is, or ask it what it was told; empty where it was told nothing, or does not answer."""
    async with credentials.channel(address) as channel:
        try:
            reply: pb.CallReply = await RigServiceStub(channel).Call(pb.CallRequest(swarm=swarm), timeout=ANSWER_S)
        except grpc.aio.AioRpcError:
            return ""
    return reply.swarm
