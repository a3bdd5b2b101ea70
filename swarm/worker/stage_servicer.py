"""The gRPC face of the data plane: each call is handed to the part of the Worker that does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc.aio

from swarm.errors import Gap, Refused, SwarmError
from swarm.wire.status import to_rpc
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1 import worker_pb2 as worker_pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceServicer
from swarm.worker.candidates import row_bytes
from swarm.worker.echo import Echoing
from swarm.worker.flow import Flow
from swarm.worker.frames import Answered
from swarm.worker.near_streams import Call, Served
from swarm.worker.opening import reserve_here
from swarm.worker.outbox import Outbox
from swarm.worker.ticket import Inside, Report
from swarm.worker.worker import Worker

Context = grpc.aio.ServicerContext[Any, Any]


async def refuse(context: Context, error: SwarmError) -> None:
    """End a call with our error. Always raises."""
    code, details = to_rpc(error)
    await context.abort(code, details)


def _report_to(send: Callable[[pb.Report], None], number: int) -> Report:
    since = time.monotonic()

    def report(failed: list[pb.StepStatus], done: bool, inside: Inside) -> None:
        held_s = time.monotonic() - since if done else 0.0
        send(pb.Report(id=number, failed=failed, done=done, held_s=held_s, inside_s=inside.all_s, slowest_s=inside.slowest_s))

    return report


class Hopping:
    """An open stream of the Worker before."""

    def __init__(self, flow: Flow, send: Callable[[pb.Report], None]) -> None:
        self._flow, self._send = flow, send

    def take(self, frame: pb.MicroBatch) -> None:
        self._flow.receive(frame, _report_to(self._send, frame.id))

    def end(self) -> None:
        """Reports that nobody hears any more are dropped where they are sent."""


def near_calls(worker: Worker) -> dict[int, Served]:
    """The streams that Workers of one rig open without gRPC."""
    return {
        Call.HOP: Served(pb.MicroBatch, lambda send: Hopping(worker.flow, send)),
        Call.EXPERTS: Served(pb.ExpertRequest, worker.shards.begin),
        Call.ECHO: Served(worker_pb.EchoFrame, lambda send: Echoing(worker.name, send)),
    }


class StageServicer(StageServiceServicer):
    """`StageService` of one Worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def Open(self, request: pb.OpenRequest, context: Context) -> AsyncIterator[pb.OpenReply]:
        try:
            async for reply in self._worker.opening.open(request, self._worker.callers.of(context)):
                yield reply
        except SwarmError as error:
            await refuse(context, error)

    async def Close(self, request: pb.CloseRequest, context: Context) -> pb.CloseReply:
        try:
            await self._worker.opening.close(request)
        except SwarmError as error:
            await refuse(context, error)
        return pb.CloseReply()

    async def Reserve(self, request: pb.OpenRequest, context: Context) -> pb.ReserveReply:
        try:
            return reserve_here(self._worker.epochs, request, self._worker.name)
        except SwarmError as error:
            await refuse(context, error)
            raise

    async def Release(self, request: pb.CloseRequest, context: Context) -> pb.CloseReply:
        try:
            self._worker.opening.release_here(request)
        except SwarmError as error:
            await refuse(context, error)
        self._worker.opening.freed()
        return pb.CloseReply()

    async def Unknown(self, request: pb.SessionsRequest, context: Context) -> pb.SessionsReply:
        try:
            return self._worker.forgotten.unknown(request)
        except SwarmError as error:
            await refuse(context, error)
            raise

    async def Submit(self, requests: AsyncIterable[pb.MicroBatch], context: Context) -> AsyncIterator[pb.Report]:
        caller = self._worker.callers.of(context)
        try:
            with caller.stream():
                async with aclosing(self._worker.entry.submit(requests, caller)) as reports:
                    async for report in reports:
                        yield report
        except SwarmError as error:
            await refuse(context, error)

    async def Hop(self, requests: AsyncIterable[pb.MicroBatch], context: Context) -> AsyncIterator[pb.Report]:
        reports = Outbox[pb.Report](lambda: reader.cancel())
        hopping = Hopping(self._worker.flow, reports.put)

        async def read() -> None:
            try:
                async for frame in requests:
                    hopping.take(frame)
            finally:
                reports.end()

        reader = asyncio.get_running_loop().create_task(read())
        try:
            async for report in reports:
                yield report
            reports.check(reader)
        except SwarmError as error:
            await refuse(context, error)
        finally:
            reader.cancel()

    async def Listen(self, request: pb.ListenRequest, context: Context) -> AsyncIterator[pb.Answer]:
        if len(request.client) != 16:
            await refuse(context, Refused("a client names itself by 16 bytes", self._worker.name))
        caller = self._worker.callers.of(context)
        try:
            self._worker.epochs.check_model(request.model_id)
            with caller.stream():
                async with aclosing(self._worker.flow.answers.listen(request.client, caller.pile)) as answers:
                    async for answer in answers:
                        yield answer
        except SwarmError as error:
            await refuse(context, error)

    async def WholeRow(self, request: pb.WholeRowRequest, context: Context) -> pb.WholeRowReply:
        """The logits [vocab] of a Session's last asked position."""
        for epoch in self._worker.epochs.all():
            session = epoch.pool.table.get(request.session)
            answered = session.answer if session is not None and session.serial == request.serial else None
            if isinstance(answered, Answered) and answered.row is not None:
                if epoch.plan.model.model_id != request.model_id:
                    await refuse(context, Refused("the session is of another model", self._worker.name))
                return pb.WholeRowReply(row=row_bytes(answered.row))
        await refuse(context, Gap(0, {}, self._worker.name))
        raise AssertionError("abort raises")

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingReply:
        return pb.PingReply()

    async def Experts(self, requests: AsyncIterable[pb.ExpertRequest], context: Context) -> AsyncIterator[pb.ExpertReply]:
        try:
            async with aclosing(self._worker.shards.serve(requests)) as replies:
                async for reply in replies:
                    yield reply
        except SwarmError as error:
            await refuse(context, error)
