"""The swarm's door: `SwarmService` over gRPC, for rigs that join and clients that want the Plan."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import grpc.aio

from cluster.coordinator import Coordinator
from cluster.doorstep import Doorstep
from cluster.place import Place
from cluster.roster import DeviceOffer, RigOffer, Versions
from cluster.target import Progress, Published, Target
from cluster.versions import check_versions, own_versions
from swarm.bits import canonical
from swarm.config import kv_dtype
from swarm.errors import ModelError, SwarmError, UsageError
from swarm.plan_check import OBJECTIVES
from swarm.wire.admission import is_guest
from swarm.wire.status import to_rpc
from swarm.wire.v1 import assets_pb2, swarm_pb2_grpc
from swarm.wire.v1 import swarm_pb2 as pb

_LOG = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class RayDoor:
    """What a Rig that was let in needs to start Ray; both empty in a swarm without Ray."""

    address: str = ""
    token: str = ""


class Door(swarm_pb2_grpc.SwarmServiceServicer):
    """Answers at the swarm's address. Who talks to it carries the swarm's key: `Credentials` saw to that.

    Args:
        address: host:port of the swarm, as its head advertises it.
        versions: what the swarm runs.
    """

    def __init__(self, coordinator: Coordinator, address: str, ray: RayDoor, versions: Versions | None = None) -> None:
        self._coordinator, self._address, self._ray = coordinator, address, ray
        self._versions = versions or own_versions()
        self._doorstep = Doorstep(coordinator, address)

    async def Knock(self, request: pb.KnockRequest, context: Context) -> pb.KnockReply:
        seen_as = _peer(context.peer())
        async with _errors(context):
            check_versions(_versions(request.versions), self._versions, request.rig_name)
            found = await self._doorstep.admit(request.rig_id, request.rig_name, Place.read(request.place), seen_as)
        return pb.KnockReply(
            ray_address=self._ray.address,
            ray_token=self._ray.token,
            versions=pb.Versions(**asdict(self._versions)),
            seen_as=seen_as,
            rig_name=self._coordinator.promise_name(request.rig_id, request.rig_name),
            neighbours=found.neighbours,
        )

    async def Visit(self, request: pb.VisitRequest, context: Context) -> pb.VisitReply:
        found = await self._doorstep.look("", Place.read(request.place))
        return pb.VisitReply(
            versions=pb.Versions(**asdict(self._versions)),
            unix_s=time.time(),
            seen_as=_peer(context.peer()),
            dialled=[pb.Dialled(rig_name=d.rig, rig_address=d.address, port=d.port, why=d.why) for d in found.dialled],
            neighbours=found.neighbours,
        )

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinReply:
        devices = tuple(DeviceOffer(d.device, d.memory_bytes, d.worker_address, d.threads, d.label) for d in request.devices)
        versions = _versions(request.versions)
        offer = RigOffer(
            request.rig_id, request.rig_name, devices, versions, request.spread, request.ram_bytes, request.text_address
        )
        async with _errors(context):
            check_versions(versions, self._versions, request.rig_name)
            _LOG.info("%s joins with %s", request.rig_name, ", ".join(d.device for d in devices))
            published = await self._coordinator.join(offer)
        if published.plan is None:
            return pb.JoinReply(message=published.waiting)
        notes = [*published.plan.notes, *self._coordinator.left_out(request.rig_id)]
        return pb.JoinReply(epoch=published.plan.epoch, message="; ".join(notes))

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> AsyncIterator[pb.Progress]:
        async with _errors(context):
            async for progress in self._coordinator.leave(request.rig_id):
                yield _progress(progress)

    async def WorkerRestarted(self, request: pb.WorkerRestartedRequest, context: Context) -> pb.WorkerRestartedReply:
        async with _errors(context):
            await self._coordinator.worker_restarted(request.rig_id, request.worker_address)
        return pb.WorkerRestartedReply()

    async def GetPlan(self, request: pb.PlanRequest, context: Context) -> pb.PlanReply:
        if request.asks:
            self._coordinator.wake()
        return self._plan(self._coordinator.published)

    async def WatchPlan(self, request: pb.PlanRequest, context: Context) -> AsyncIterator[pb.PlanReply]:
        async for published in self._coordinator.watch("" if is_guest(context) else request.rig_id):  # rigs are members
            yield self._plan(published)

    async def GetAssets(self, request: pb.AssetsRequest, context: Context) -> pb.AssetsReply:
        description = self._coordinator.published.description
        async with _errors(context):
            if description is None or request.model_id not in ("", description.model.model_id):
                raise ModelError(f"the swarm does not hold the model {request.model_id}: ask for its plan again")
        assert description
        assets = [assets_pb2.Asset(name=name, data=data) for name, data in sorted(description.assets.items())]
        return pb.AssetsReply(assets=assets, sha256=description.assets_sha256)

    async def Load(self, request: pb.LoadRequest, context: Context) -> AsyncIterator[pb.Progress]:
        async with _errors(context):
            async for progress in self._coordinator.change(lambda now: _target(request, now)):
                yield _progress(progress)

    async def Unload(self, request: pb.UnloadRequest, context: Context) -> pb.UnloadReply:
        async with _errors(context):
            num_bytes = await self._coordinator.unload()
        return pb.UnloadReply(model=self._coordinator.target.source, bytes=num_bytes)

    async def PauseLoss(self, request: pb.PauseRequest, context: Context) -> pb.PauseLossReply:
        async with _errors(context):
            loss = await self._coordinator.pausing.loss(request.rig, request.device)
        return pb.PauseLossReply(
            devices=loss.devices,
            bytes=loss.num_bytes,
            seconds=loss.seconds,
            tokens_per_s=loss.before,
            tokens_per_s_left=loss.after,
            shortage=loss.shortage,
        )

    async def Pause(self, request: pb.PauseRequest, context: Context) -> AsyncIterator[pb.Progress]:
        async with _errors(context):
            async for progress in self._coordinator.pausing.pause(request.rig, request.device):
                yield _progress(progress)

    async def Resume(self, request: pb.PauseRequest, context: Context) -> AsyncIterator[pb.Progress]:
        async with _errors(context):
            async for progress in self._coordinator.pausing.resume(request.rig, request.device):
                yield _progress(progress)

    async def GetStatus(self, request: pb.StatusRequest, context: Context) -> pb.StatusReply:
        return pb.StatusReply(
            json=json.dumps({**self._coordinator.status(), "address": self._address, "head": self._coordinator.head})
        )

    async def ReportFailure(self, request: pb.FailureReport, context: Context) -> pb.FailureReply:
        self._coordinator.report_failure(request.worker)
        return pb.FailureReply()

    def _plan(self, published: Published) -> pb.PlanReply:
        return pb.PlanReply(
            plan=published.plan.to_json() if published.plan else "",
            waiting=published.waiting,
            assets_sha256=published.description.assets_sha256 if published.description else "",
            unloaded=published.plan is None and self._coordinator.target.unloaded,
            coming=self._coordinator.waking,
        )


@asynccontextmanager
async def _errors(context: Context) -> AsyncIterator[None]:
    """Turns our errors into the wire's."""
    try:
        yield
    except SwarmError as error:
        _LOG.warning("refused %s: %s", _peer(context.peer()), error)
        await context.abort(*to_rpc(error))


def _target(request: pb.LoadRequest, now: Target) -> Target:
    if request.objective and request.objective not in OBJECTIVES:
        raise UsageError(f"--objective {request.objective} is none of {', '.join(OBJECTIVES)}")
    return replace(
        now,
        source=request.model or now.source,
        dtype=canonical(request.dtype) if request.dtype else now.dtype,
        sessions=request.sessions or now.sessions,
        context=request.context or now.context,
        objective=request.objective or now.objective,
        standby=request.standby if request.HasField("standby") else now.standby,
        kv=kv_dtype(request.kv) if request.kv else now.kv,
        unloaded=False,
    )


def _progress(progress: Progress) -> pb.Progress:
    return pb.Progress(message=progress.message, fraction=progress.fraction, done=progress.done, lines=progress.lines)


def _versions(theirs: pb.Versions) -> Versions:
    return Versions(theirs.swarm, theirs.python, theirs.ray, theirs.torch)


def _peer(peer: str) -> str:
    """The address in gRPC's `ipv4:10.0.0.2:50123`."""
    return peer.partition(":")[2].rpartition(":")[0] or peer
