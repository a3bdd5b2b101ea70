"""What Workers count while they serve, looked at twice: how busy each was in between, and what its Hops took."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc.aio

from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub

LOOK_S = 5.0
"""How long a Worker may take to say what it counted."""

Look = Mapping[str, pb.WorkerStatus]
"""By Worker; who does not answer is not in it."""


class Counters:
    """Asks the Workers of a Plan. Its channels stay open, so that two looks frame what lies between them closely."""

    def __init__(self, plan: Plan, credentials: Credentials) -> None:
        self._channels = {w.name: credentials.channel(w.address) for w in plan.workers}

    async def look(self) -> Look:
        """What each Worker counted up to now."""
        replies = await asyncio.gather(*(self._ask(channel) for channel in self._channels.values()))
        return {name: reply for name, reply in zip(self._channels, replies, strict=True) if reply is not None}

    async def close(self) -> None:
        """End the channels."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))

    @staticmethod
    async def _ask(channel: grpc.aio.Channel) -> pb.WorkerStatus | None:
        try:
            reply: pb.WorkerStatus = await WorkerServiceStub(channel).Status(pb.WorkerStatusRequest(), timeout=LOOK_S)
        except grpc.aio.AioRpcError:  # a measurement that lacks one Worker is better than none: it is told as unknown
            return None
        return reply


def busy_shares(before: Look, after: Look) -> dict[str, float]:
    """By Worker, the share of the time in between that its compute thread worked; a Worker that began anew is left out."""
    shares = {}
    for name, now in after.items():
        then = before.get(name)
        if then is not None and then.pid == now.pid and now.up_s > then.up_s:
            shares[name] = min(1.0, max(0.0, (now.busy_s - then.busy_s) / (now.up_s - then.up_s)))
    return shares


def hop_times(before: Look, after: Look) -> dict[str, float]:
    """By Worker, the mean seconds there and back of the Hops that it sent on in between; who sent none is left out."""
    times = {}
    for name, now in after.items():
        then = before.get(name)
        if then is not None and then.pid == now.pid and now.hops.count > then.hops.count:
            times[name] = (now.hops.seconds - then.hops.seconds) / (now.hops.count - then.hops.count)
    return times
