"""What the way between this machine and the swarm adds to a token, measured while chatting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc.aio

from swarm.client.answer import Answer
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub

LOOKS = 3
"""Round trips to a Worker, of which the shortest counts: what is longer waited for something else."""
LOOK_S = 2.0
LEAST_S = 2e-3
LEAST_SHARE = 0.03
"""A link that adds less than this, or this share of a token's time, is not worth a word."""
LEAST_TRAVERSALS = 4


@dataclass(frozen=True)
class OwnLink:
    """Seconds that the link adds to a token, the rig next to which a Decoder would spare them, and whether all of them."""

    seconds: float
    rig: str
    all_of_it: bool

    @property
    def hint(self) -> str:
        """For people."""
        saved = "avoids it" if self.all_of_it else "avoids most of it"
        return f"your link adds {self.seconds * 1e3:.0f} ms a token; --via {self.rig} {saved}"


async def own_link(answer: Answer, plan: Plan, credentials: Credentials) -> OwnLink | None:
    """What it adds to a token of an answer that just ended; None where that is not worth a word, or nobody answers."""
    workers = _ends(answer)
    if not workers or not set(workers) <= {w.name for w in plan.workers}:
        return None
    found = await asyncio.gather(*(_round_trip(plan.worker(name).address, credentials) for name in dict.fromkeys(workers)))
    trips = {name: trip for name, trip in zip(dict.fromkeys(workers), found, strict=True) if trip is not None}
    return link_of(answer, trips, {w.name: w.rig for w in plan.workers})


def link_of(answer: Answer, trips: Mapping[str, float], rigs: Mapping[str, str]) -> OwnLink | None:
    """The same of round trips in seconds by Worker: a traversal is half of one to the first Stage, half of one from the last."""
    ends = _ends(answer)
    if not ends or not set(ends) <= trips.keys() or not answer.tokens:
        return None
    first, last = ends
    way = max(answer.trace.ways, key=lambda way: way.count)
    traversal_s = (trips[first] + trips[last]) / 2
    if way.count < LEAST_TRAVERSALS or traversal_s < max(LEAST_S, LEAST_SHARE * way.traversal_s / way.count):
        return None
    rig = rigs[first] if trips[first] >= trips[last] else rigs[last]
    a_token = traversal_s * answer.traversals / max(1, len(answer.tokens) - 1)
    return OwnLink(a_token, rig, rigs[first] == rigs[last])


def _ends(answer: Answer) -> tuple[str, str] | None:
    """The first and the last Worker of the way that the answer went most."""
    way = max(answer.trace.ways, key=lambda way: way.count, default=None)
    return (way.workers[0], way.workers[-1]) if way and way.workers else None


async def _round_trip(address: str, credentials: Credentials) -> float | None:
    channel = credentials.channel(address)
    stub, trips = StageServiceStub(channel), []
    try:
        await stub.Ping(pb.PingRequest(), timeout=LOOK_S)  # connects, which is no round trip
        for _ in range(LOOKS):
            began = time.monotonic()
            await stub.Ping(pb.PingRequest(), timeout=LOOK_S)
            trips.append(time.monotonic() - began)
    except grpc.aio.AioRpcError:
        return None
    finally:
        await channel.close(None)
    return min(trips)
