"""The gRPC face of what a Rig has of models: `WeightsService` of one Worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from swarm.errors import Refused, SwarmError
from swarm.plan import Plan
from swarm.wire.v1 import assets_pb2
from swarm.wire.v1 import weights_pb2 as pb
from swarm.wire.v1.weights_pb2_grpc import WeightsServiceServicer
from swarm.worker.fetching import Fetching, survey
from swarm.worker.recent_pieces import RecentPieces
from swarm.worker.stage_servicer import refuse
from swarm.worker.weights_peer import REQUEST_BYTES
from swarm.worker.worker import Worker

PIECE_BYTES = 1 << 20
READERS = 8
"""Ranges that are read out at the same time; others wait for their turn."""
Context = grpc.aio.ServicerContext[Any, Any]


class WeightsServicer(WeightsServiceServicer):
    """Serves what the Worker's `Stock` has."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._readers = asyncio.Semaphore(READERS)
        self._recent = RecentPieces()

    async def Survey(self, request: pb.SurveyRequest, context: Context) -> pb.SurveyReply:
        try:
            return await survey(self._worker, Plan.from_json(request.plan), request.name, request.peers)
        except SwarmError as error:
            await refuse(context, error)
            raise

    async def Fetch(self, request: pb.FetchRequest, context: Context) -> AsyncIterator[pb.FetchProgress]:
        try:
            model = Plan.from_json(request.plan).model
            async with Fetching(self._worker.stock, model, request.files, self._worker.loading) as fetching:
                async for done, total, rate in fetching.progress():
                    yield pb.FetchProgress(done_bytes=done, total_bytes=total, bytes_per_s=rate)
        except SwarmError as error:
            await refuse(context, error)

    async def Outline(self, request: pb.OutlineRequest, context: Context) -> pb.OutlineReply:
        try:
            found = self._worker.stock.known(request.model_id)
        except SwarmError as error:
            await refuse(context, error)
            raise
        small_files = [assets_pb2.Asset(name=name, data=data) for name, data in found.small_files.items()]
        return pb.OutlineReply(small_files=small_files, files=list(found.files))

    async def Read(self, request: pb.ReadRequest, context: Context) -> AsyncIterator[pb.Piece]:
        try:
            if request.size > REQUEST_BYTES:
                raise Refused(f"{request.size} bytes were asked for at once: ask for {REQUEST_BYTES} at most")
            async with self._readers:
                async for piece in self._pieces(request):
                    yield piece
        except SwarmError as error:
            await refuse(context, error)

    async def _pieces(self, request: pb.ReadRequest) -> AsyncIterator[pb.Piece]:
        """The file's size, then a range in order; each piece is read by a thread while the one before is on its way."""
        file = self._worker.stock.file(request.model_id, request.file)
        size = await asyncio.to_thread(file.size)
        yield pb.Piece(file_bytes=size)
        end, of = min(request.offset + request.size, size), (request.model_id, request.file)
        with self._recent.reader():
            reads = (self._recent.piece(file, of, at, min(PIECE_BYTES, end - at)) for at in range(request.offset, end, PIECE_BYTES))
            ahead = next(reads, None)
            while ahead is not None:
                piece = await asyncio.shield(ahead)
                ahead = next(reads, None)
                yield piece
