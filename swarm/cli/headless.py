"""A swarm whose Coordinator does not answer, as those of its Workers show it that this machine knows of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc.aio

from swarm.cli import options
from swarm.cli.rigs_noted import RigAt, noted_rigs
from swarm.errors import Expired, Lost, NoSwarm, SwarmError
from swarm.plan import Plan
from swarm.wire.overview import overview
from swarm.wire.status import from_rpc
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub

ANSWER_S = 5.0
WHAT_TO_DO = "it comes back by itself where `swarm up` runs, else run `swarm up` on the head rig again"


async def headless(target: options.Target, silence: SwarmError) -> dict[str, Any]:
    """The status document from what Workers say; `silence` in it is one sentence: what is gone, what works, what to do.

    Raises:
        NoSwarm: no Worker answers either, or none is known; it says what the door's silence is.
        WrongKey: a Worker does not accept the key.
    """
    rigs = noted_rigs(target.address)
    if not rigs:
        raise silence
    addresses = [address for rig in rigs for address in rig.workers]
    replies = await asyncio.gather(*(worker_status(address, address, target) for address in addresses))
    found = {reply.name: reply for reply in replies if reply is not None}
    if not found:
        raise NoSwarm(f"{target.what} does not answer, nor {_any_worker(rigs)}: look whether they and the network are up, {_LAST}")
    newest = max(found.values(), key=lambda reply: reply.epoch)
    if not newest.plan:
        raise NoSwarm(f"{_gone(target)}; {len(found)} of {len(addresses)} workers answer and hold no model: {WHAT_TO_DO}")
    plan = Plan.from_json(newest.plan, f"the plan of {newest.name}")
    serving = {name: reply for name, reply in found.items() if reply.epoch == plan.epoch}
    return overview(plan, found) | {"silence": f"{_gone(target)}; {_what_works(plan, serving)}; {WHAT_TO_DO}"}


_LAST = "then run `swarm up` on the head rig again"


async def worker_status(name: str, address: str, target: options.Target) -> pb.WorkerStatus | None:
    """What a Worker says of itself; None where nobody answers. Raises WrongKey."""
    async with target.channel(address) as channel:
        try:
            reply: pb.WorkerStatus = await WorkerServiceStub(channel).Status(pb.WorkerStatusRequest(), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            meant = from_rpc(error, f"worker {name} at {address}")
            if isinstance(meant, NoSwarm | Expired | Lost):
                return None
            raise meant from None
    return reply


def _gone(target: options.Target) -> str:
    return f"the Coordinator of {target.what} does not answer"


def _what_works(plan: Plan, serving: Mapping[str, pb.WorkerStatus]) -> str:
    waits = "new chats, joining and leaving wait"
    lost = [w.name for w in plan.workers if w.name not in serving]
    if not lost:
        return f"all {len(serving)} workers serve on, so running chats go on; {waits}"
    return f"{len(serving)} of {len(plan.workers)} workers serve on, {', '.join(lost)} not, so chats that need it and {waits}"


def _any_worker(rigs: tuple[RigAt, ...]) -> str:
    return f"any worker of {', '.join(rig.name for rig in rigs)}"
