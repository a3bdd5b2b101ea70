"""The gRPC face of a Worker's control: Describe, Prepare, Commit, Drain, Status, and what measures it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from json import dumps
from typing import Any

import grpc.aio

from swarm.errors import SwarmError
from swarm.plan import Plan
from swarm.weights.describe import client_files, describe
from swarm.wire.credentials import Credentials
from swarm.wire.dial import MOST_PORTS, dial
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceServicer
from swarm.worker.echo import Echo, measure_link
from swarm.worker.measure_turns import measure
from swarm.worker.sensors import Sensors, card_of, output_of
from swarm.worker.stage_servicer import refuse
from swarm.worker.worker import Worker

MOST_DIAL_S = 10.0
_LOG = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


class ControlServicer(WorkerServiceServicer):
    """`WorkerService` of one Worker.

    Args:
        address: where it listens, for messages.
        credentials: for measuring the way to others.
    """

    def __init__(self, worker: Worker, address: str, credentials: Credentials) -> None:
        self._worker = worker
        self._address = address
        self._credentials = credentials
        self._echo = Echo(worker.name)
        self._sensors = Sensors(str(worker.device), output_of, card_of)

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeReply:
        try:
            return await asyncio.to_thread(_describe, request)
        except SwarmError as error:
            await refuse(context, error)
            raise

    async def Prepare(self, request: pb.PrepareRequest, context: Context) -> AsyncIterator[pb.PrepareProgress]:
        try:
            plan = Plan.from_json(request.plan)
            _LOG.info("epoch %d: loads its part of %s in %s", plan.epoch, plan.model.name, plan.model.dtype)
            order = (plan, request.name, request.folder, request.release_first, request.peers)
            async for loaded, total in self._worker.prepare(*order):
                yield pb.PrepareProgress(loaded_bytes=loaded, total_bytes=total)
            _LOG.info("epoch %d: all is loaded", plan.epoch)
        except SwarmError as error:
            _LOG.error("cannot load: %s", error)
            await refuse(context, error)

    async def Commit(self, request: pb.EpochRequest, context: Context) -> pb.EpochReply:
        try:
            self._worker.commit(request.epoch)
            _LOG.info("epoch %d: serves", request.epoch)
        except SwarmError as error:
            await refuse(context, error)
        return pb.EpochReply()

    async def Drain(self, request: pb.EpochRequest, context: Context) -> pb.EpochReply:
        await self._worker.drain(request.epoch, request.deadline_s)
        _LOG.info("epoch %d: given back", request.epoch)
        return pb.EpochReply()

    async def Status(self, request: pb.WorkerStatusRequest, context: Context) -> pb.WorkerStatus:
        status = self._worker.status()
        self._sensors.tell(status)
        return status

    async def Measure(self, request: pb.MeasureRequest, context: Context) -> pb.MeasureReply:
        try:
            return await measure(self._worker, request)
        except SwarmError as error:
            await refuse(context, error)
            raise

    async def Echo(self, requests: AsyncIterable[pb.EchoFrame], context: Context) -> AsyncIterator[pb.EchoFrame]:
        try:
            async with aclosing(self._echo.answers(requests)) as answers:
                async for answer in answers:
                    yield answer
        except SwarmError as error:
            await refuse(context, error)

    async def MeasureLink(self, request: pb.LinkRequest, context: Context) -> pb.LinkReply:
        try:
            return await measure_link(self._credentials, self._address, request.address, request.budget_s, request.beside)
        except SwarmError as error:
            await refuse(context, error)
            raise

    async def Dial(self, request: pb.DialRequest, context: Context) -> pb.DialReply:
        return pb.DialReply(why=await dial(request.host, request.ports[:MOST_PORTS], min(request.timeout_s, MOST_DIAL_S)))


def _describe(request: pb.DescribeRequest) -> pb.DescribeReply:
    model = describe(request.model, request.dtype or "auto")
    reply = pb.DescribeReply(model=dumps(asdict(model)))
    for name, data in client_files(request.model).items():
        reply.assets.add(name=name, data=data)
    return reply
