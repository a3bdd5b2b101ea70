"""Asks a swarm what it would say to this machine, without joining it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import grpc.aio

from cluster.dial_back import Dialled
from cluster.dialled_by import listening, ways
from cluster.doctor.way import WayFacts
from cluster.place import Place
from cluster.roster import Versions
from swarm.errors import PortInUse
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

ANSWER_S = 10.0
DIALLED_S = 30.0
"""How long every Rig may take to dial this one."""


@dataclass(frozen=True)
class Visit:
    """What came of it; `theirs` and `ahead_s` (of our clock) are None where the swarm did not answer."""

    way: WayFacts
    theirs: Versions | None = None
    ahead_s: float | None = None


async def visit(credentials: Credentials, address: str, name: str, place: Place, bind: str) -> Visit:
    """Listen on the ports of `place`, be dialled there, and dial the swarm's Rigs.

    Args:
        bind: where to listen.
    """
    nothing = WayFacts(address, name, place)
    channel = credentials.channel(address)
    stub = SwarmServiceStub(channel)
    try:
        await stub.GetStatus(pb.StatusRequest(), timeout=ANSWER_S)  # connects, so that the next one is a round trip
        began = time.monotonic()
        await stub.GetPlan(pb.PlanRequest(), timeout=ANSWER_S)
        rtt_s = time.monotonic() - began
        async with listening(bind, place.ports):
            began = time.time()
            reply = await stub.Visit(pb.VisitRequest(rig_name=name, place=place.to_wire()), timeout=DIALLED_S)
            ended = time.time()
    except grpc.aio.AioRpcError as error:
        return Visit(replace(nothing, trouble=str(from_rpc(error, f"the swarm at {address}"))))
    except PortInUse as error:
        return Visit(replace(nothing, trouble=str(error)))
    finally:
        await channel.close(None)
    dialled = tuple(Dialled(d.rig_name, d.rig_address, d.port, d.why) for d in reply.dialled)
    way = replace(
        nothing, rtt_s=rtt_s, seen_as=reply.seen_as, dialled=dialled, ways=tuple(await ways(reply.neighbours)),
    )  # fmt: skip
    v = reply.versions
    return Visit(way, Versions(v.swarm, v.python, v.ray, v.torch), ahead(reply.unix_s, began, ended))


def ahead(theirs: float, began: float, ended: float) -> float:
    """Seconds that our clock is ahead, at least: it said so some time between asking and hearing."""
    if began <= theirs <= ended:
        return 0.0
    return ended - theirs if theirs > ended else began - theirs
