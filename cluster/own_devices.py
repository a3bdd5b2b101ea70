"""Which of this Rig's Devices the swarm plans on, for the person in front of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import grpc.aio

from swarm.errors import SwarmError
from swarm.wire.status_document import read_status
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

LOOK_S = 2.0
ANSWER_S = 5.0


class OwnDevices:
    """Says when a Device of this Rig is left out, why, and when it is planned on again.

    Args:
        stub: of the swarm's door, wherever that is now.
        notify: takes each sentence, once.
    """

    def __init__(self, stub: Callable[[], SwarmServiceStub], rig_id: str, notify: Callable[[str], None]) -> None:
        self._stub, self._rig_id, self._notify = stub, rig_id, notify
        self._out: dict[str, str] = {}

    async def watch(self) -> None:
        """Ask the swarm again and again, until cancelled. A swarm that does not answer says nothing of Devices."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, SwarmError):
                reply = await self._stub().GetStatus(pb.StatusRequest(), timeout=ANSWER_S)
                self._compare(left_out(read_status(reply.json, "the swarm"), self._rig_id))
            await asyncio.sleep(LOOK_S)

    def _compare(self, out: dict[str, str]) -> None:
        for name, why in out.items():
            if self._out.get(name) != why:
                self._notify(f"{name} is left out: {why}")
        for name in self._out.keys() - out.keys():
            self._notify(f"{name} is planned on again")
        self._out = out


def left_out(document: Mapping[str, Any], rig_id: str) -> dict[str, str]:
    """Why each Device of a Rig that is left out is, by name; from the document of `swarm status --json`."""
    own = {name for rig in document.get("rigs", ()) if rig["id"] == rig_id for name in rig.get("devices", ())}
    out = {worker["name"]: worker.get("out", "") for worker in document.get("workers", ())}
    return {name: why for name, why in out.items() if name in own and why}
