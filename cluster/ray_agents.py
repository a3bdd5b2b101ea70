"""Agents as Ray actors, so that the dashboard's actor page shows which Worker holds which Blocks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.agents import (
    DESCRIBE_S,
    ORDER_S,
    Agent,
    Description,
    DialOrder,
    LinkOrder,
    PrepareOrder,
    WorkerAgent,
    read_description,
)
from cluster.fetch_plan import Survey
from cluster.measurements import Figures, Shape
from cluster.metrics import Readings
from cluster.planner.hardware import Link
from cluster.ray_metrics import RayMetrics
from cluster.ray_node import LABEL, NAMESPACE
from cluster.roster import Device
from cluster.weights_orders import FetchOrder, SurveyOrder
from swarm.errors import NoSwarm, SwarmError
from swarm.logs.file import LogFile
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import rig_pb2, rig_pb2_grpc, worker_pb2_grpc
from swarm.wire.v1 import worker_pb2 as pb

_LOG = logging.getLogger(__name__)
APPOINT_S = 30.0
AGAIN_S = 0.2
GAUGE_S = 5.0
T = TypeVar("T")


class AgentActor:
    """Lives on its Device's Rig and passes orders to the Worker there. gRPC's errors go back as they are."""

    def __init__(self, credentials: Credentials, address: str, worker: str, holding: str) -> None:
        self._credentials, self._address, self._worker, self._holding = credentials, address, worker, holding
        self._answers = True

    def __repr__(self) -> str:
        return self._holding

    async def open(self) -> None:
        """Make the channel in the actor's own loop; keep a log and report gauges from now on."""
        self._channel = self._credentials.channel(self._address)
        self._stub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._gauges = asyncio.create_task(self._report())

    async def describe(self, request: bytes) -> bytes:
        reply: pb.DescribeReply = await self._stub.Describe(pb.DescribeRequest.FromString(request), timeout=DESCRIBE_S)
        return reply.SerializeToString()

    async def prepare(self, request: bytes) -> AsyncIterator[tuple[int, int]]:
        loading = self._stub.Prepare(pb.PrepareRequest.FromString(request))
        try:
            async for progress in loading:
                yield progress.loaded_bytes, progress.total_bytes
        finally:
            loading.cancel()  # the Worker stops loading when its call ends, and not before

    async def commit(self, epoch: int) -> None:
        _LOG.info("epoch %d: has it serve", epoch)
        await self._stub.Commit(pb.EpochRequest(epoch=epoch), timeout=ORDER_S)

    async def drain(self, epoch: int, deadline_s: float) -> None:
        _LOG.info("epoch %d: has it given back", epoch)
        await self._stub.Drain(pb.EpochRequest(epoch=epoch, deadline_s=deadline_s), timeout=deadline_s + ORDER_S)

    async def _report(self) -> None:
        await self._keep_log()
        metrics, readings = RayMetrics(), Readings(self._worker)
        while True:
            try:
                status: pb.WorkerStatus | None = await self._stub.Status(pb.WorkerStatusRequest(), timeout=GAUGE_S)
            except grpc.aio.AioRpcError:
                status = None
            self._notice(status is not None)
            metrics.report(readings.of(status))
            await asyncio.sleep(GAUGE_S)

    async def _keep_log(self) -> None:
        """Beside its Worker's, until this process ends. Where the Worker does not say where that is, there is none."""
        asked = rig_pb2_grpc.RigServiceStub(self._channel).Logs(rig_pb2.LogsRequest(since=1.0), timeout=GAUGE_S)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for reply in asked:
                rig, _, device = self._worker.partition("/")
                if reply.folder:
                    LogFile(Path(reply.folder), rig, f"agent {device}").__enter__()
                    _LOG.info("stands for %s, process %d", self._holding, os.getpid())
                break
        asked.cancel()

    def _notice(self, answers: bool) -> None:
        if answers != self._answers:
            _LOG.log(
                logging.INFO if answers else logging.WARNING, "its worker %s", "answers again" if answers else "does not answer"
            )
        self._answers = answers


class RayAgent:
    """Orders go through the actor, and straight to the Worker where the actor is gone: losing Ray is not losing a Worker.

    Status, measurements and what weights are where are always asked of the Worker itself.
    """

    def __init__(self, actor: Any, direct: WorkerAgent, name: str) -> None:
        self._actor, self._direct, self._what = actor, direct, f"worker {name}"

    async def describe(self, model: str, dtype: str) -> Description:
        request = pb.DescribeRequest(model=model, dtype=dtype).SerializeToString()
        try:
            return read_description(pb.DescribeReply.FromString(await self._ask(self._actor.describe.remote(request))))
        except RayError:
            return await self._direct.describe(model, dtype)

    async def prepare(self, order: PrepareOrder) -> AsyncIterator[tuple[int, int]]:
        try:
            async with contextlib.aclosing(self._loading(order.request().SerializeToString())) as loading:
                async for counts in loading:
                    yield counts
        except RayError:
            async for counts in self._direct.prepare(order):
                yield counts

    async def _loading(self, request: bytes) -> AsyncGenerator[tuple[int, int]]:
        """Has the actor load; ends that, too, when nobody takes what it says any more: Ray's own stream would go on."""
        stream = self._actor.prepare.options(num_returns="streaming").remote(request)
        try:
            async for progress in stream:
                yield await self._ask(progress)
        finally:
            with contextlib.suppress(RayError):
                ray.cancel(stream)

    async def commit(self, epoch: int) -> None:
        try:
            await self._ask(self._actor.commit.remote(epoch))
        except RayError:
            await self._direct.commit(epoch)

    async def drain(self, epoch: int, deadline_s: float) -> None:
        try:
            await self._ask(self._actor.drain.remote(epoch, deadline_s))
        except RayError:
            await self._direct.drain(epoch, deadline_s)

    async def status(self, timeout_s: float) -> pb.WorkerStatus:
        return await self._direct.status(timeout_s)

    async def survey(self, order: SurveyOrder) -> Survey:
        return await self._direct.survey(order)

    async def fetch(self, order: FetchOrder) -> AsyncIterator[tuple[int, int, float]]:
        async for progress in self._direct.fetch(order):
            yield progress

    async def measure(self, shape: Shape, beside: bool = False) -> Figures:
        return await self._direct.measure(shape, beside)

    async def measure_link(self, order: LinkOrder) -> Link:
        return await self._direct.measure_link(order)

    async def dial(self, order: DialOrder) -> list[str]:
        return await self._direct.dial(order)

    async def close(self) -> None:
        with contextlib.suppress(RayError):  # an actor that cannot be reached ends with its Ray node
            ray.kill(self._actor)
        await self._direct.close()

    async def _ask(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except RayTaskError as error:
            if isinstance(error.cause, grpc.aio.AioRpcError):
                raise from_rpc(error.cause, self._what) from None
            raise SwarmError(f"the agent of {self._what} failed: {error.cause}") from None


class RayAgents:
    """Appoints Agents on the Ray node of their Device's Rig."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def plain(self, device: Device) -> Agent:
        return WorkerAgent(self._credentials, device.address, device.name)

    async def appoint(self, device: Device, holding: str) -> Agent:
        """Raises NoSwarm where the Rig's Ray node is not there."""
        try:
            async with asyncio.timeout(APPOINT_S):
                node = await self._node(device)
                actor = await self._actor(device, holding, node)
                await actor.open.remote()
        except (RayError, TimeoutError) as error:
            raise NoSwarm(
                f"no agent could be started on {device.rig} ({type(error).__name__}: {error}): is its Ray node up?"
            ) from None
        return RayAgent(actor, WorkerAgent(self._credentials, device.address, device.name), device.name)

    async def nodes(self) -> dict[str, str] | None:
        try:
            found = await asyncio.to_thread(ray.nodes)
        except RayError:
            return None
        return {node["Labels"].get(LABEL, ""): str(node["NodeID"]) for node in found if node["Alive"]}

    async def _actor(self, device: Device, holding: str, node: str) -> Any:
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        made: Any = ray.remote(AgentActor).options(
            name=holding, namespace=NAMESPACE, num_cpus=0, max_concurrency=16, scheduling_strategy=where
        )
        while True:
            try:
                return made.remote(self._credentials, device.address, device.name, holding)
            except ValueError:  # an Agent of that name was given up a moment ago, and Ray has not seen its end yet
                await asyncio.sleep(AGAIN_S)

    async def _node(self, device: Device) -> str:
        """The Ray node id, by the node's label."""
        if node := (await self.nodes() or {}).get(device.rig_id):
            return node
        raise NoSwarm(f"{device.rig} has no Ray node in this swarm: let it join again")
