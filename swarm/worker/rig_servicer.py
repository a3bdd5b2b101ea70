"""The gRPC face of what a rig says of itself: `RigService` of one of its Workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio

from swarm.logs.reader import Reader
from swarm.logs.record import Record
from swarm.weights.stored import free_bytes, stored
from swarm.wire.v1 import rig_pb2 as pb
from swarm.wire.v1.rig_pb2_grpc import RigServiceServicer

LOOK_S = 0.5
"""How often a reader that follows looks for what is new."""
LINES = 500
"""In one reply."""
Context = grpc.aio.ServicerContext[Any, Any]


class RigServicer(RigServiceServicer):
    """Answers from the rig's disk.

    Args:
        logs: the folder of its logs, beside which lies its id; None: it keeps none.
        cache: the folder of quantized weights; None: there is none.
    """

    def __init__(self, logs: Path | None, cache: Path | None) -> None:
        self._logs, self._cache = logs, cache
        self._swarm = ""

    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsReply]:
        yield pb.LogsReply(rig_id=self._rig_id(), clock=time.time(), folder=str(self._logs or ""))
        if self._logs is None:
            return
        reader = Reader(self._logs, time.time() - request.since if request.since else 0.0)
        while True:
            for reply in _replies(await asyncio.to_thread(reader.new)):
                yield reply
            if not request.follow:
                return
            await asyncio.sleep(LOOK_S)

    async def Call(self, request: pb.CallRequest, context: Context) -> pb.CallReply:
        self._swarm = request.swarm or self._swarm
        return pb.CallReply(swarm=self._swarm)

    async def Models(self, request: pb.ModelsRequest, context: Context) -> pb.ModelsReply:
        return await asyncio.to_thread(self._models)

    def _models(self) -> pb.ModelsReply:
        reply = pb.ModelsReply(rig_id=self._rig_id(), free_bytes=free_bytes(self._cache) if self._cache else 0)
        for s in stored(self._cache):
            reply.models.add(model=s.model, kind=s.kind, dtype=s.dtype, bytes=s.num_bytes, last_used=s.last_used, whole=s.whole)
        return reply

    def _rig_id(self) -> str:
        with suppress(OSError):
            if self._logs is not None:
                return (self._logs.parent / "id").read_text(encoding="utf-8").strip()
        return ""


def _replies(records: Sequence[Record]) -> list[pb.LogsReply]:
    lines = [record.line() for record in records]
    return [pb.LogsReply(clock=time.time(), lines=lines[at : at + LINES]) for at in range(0, len(lines), LINES)]
