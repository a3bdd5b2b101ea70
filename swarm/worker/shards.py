"""The experts that this Worker holds for others: requests in, their outputs out, before all Stage work."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from swarm.errors import Moved, Refused, SwarmError
from swarm.wire.tensors import from_wire, to_wire
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.compute import Compute
from swarm.worker.device_time import still_computes
from swarm.worker.epoch import Epoch, Epochs
from swarm.worker.outbox import Outbox
from swarm.worker.rates import Rates

_LOG = logging.getLogger(__name__)


class Shards:
    """Serves the streams of those whose Blocks have experts here, and knows which epochs they ask for."""

    def __init__(self, epochs: Epochs, compute: Compute, rates: Rates) -> None:
        self._epochs = epochs
        self._compute = compute
        self._rates = rates
        self._streams: set[Asking] = set()

    async def serve(self, requests: AsyncIterable[pb.ExpertRequest]) -> AsyncGenerator[pb.ExpertReply, None]:
        """One stream of another Worker through gRPC. Every request is answered."""
        replies, loop = Outbox[pb.ExpertReply](), asyncio.get_running_loop()

        def send(reply: pb.ExpertReply) -> None:
            loop.call_soon_threadsafe(replies.put, reply)

        stream = self.begin(send)

        async def read() -> None:
            try:
                async for request in requests:
                    stream.take(request)
            finally:
                replies.end()

        reader = asyncio.get_running_loop().create_task(read())
        try:
            async for reply in replies:
                yield reply
            replies.check(reader)
        finally:
            reader.cancel()
            stream.end()

    def begin(self, send: Callable[[pb.ExpertReply], None]) -> Asking:
        """Somebody opened a stream; `send` answers on it, from any thread."""
        stream = Asking(self, send)
        self._streams.add(stream)
        return stream

    def ended(self, stream: Asking) -> None:
        self._streams.discard(stream)

    def submit(self, request: pb.ExpertRequest, send: Callable[[pb.ExpertReply], None]) -> None:
        """Have the compute thread answer."""
        self._compute.submit_shard(partial(self._compute_one, request, send))

    async def over(self, epoch: int) -> None:
        """Return when nobody whose stream is open has asked for this epoch: who retires it ends the stream."""
        while any(epoch in stream.epochs for stream in self._streams):
            await asyncio.sleep(0.005)

    def _compute_one(self, request: pb.ExpertRequest, send: Callable[[pb.ExpertReply], None]) -> None:
        """On the compute thread."""
        epoch: Epoch | None = None
        try:
            epoch = self._epochs.held(request.epoch, request.model_id)
            reply = self._rates.request(request, epoch, partial(answer, request, epoch))
        except Moved as error:
            reply = pb.ExpertReply(id=request.id, code=pb.MOVED, message=str(error))
        except SwarmError as error:
            reply = pb.ExpertReply(id=request.id, code=pb.REFUSED, message=str(error))
        except Exception as error:
            _LOG.exception("computing for another worker failed")
            if epoch is not None and not still_computes(epoch.device):
                raise  # see `run_batch`
            reply = pb.ExpertReply(id=request.id, code=pb.LOST, message=f"computing failed: {error!r}")
        send(reply)


class Asking:
    """An open stream of another Worker."""

    def __init__(self, shards: Shards, send: Callable[[pb.ExpertReply], None]) -> None:
        self._shards, self._send = shards, send
        self.epochs: set[int] = set()
        """Those that it has asked for."""

    def take(self, request: pb.ExpertRequest) -> None:
        self.epochs.add(request.epoch)
        self._shards.submit(request, self._send)

    def end(self) -> None:
        self._shards.ended(self)


def answer(request: pb.ExpertRequest, epoch: Epoch) -> pb.ExpertReply:
    """Answer another Worker's request, on the compute thread.

    Raises:
        Refused: the request's sizes contradict each other, or it names an expert that is not held here.
    """
    started = time.perf_counter()
    num_rows = request.hidden.shape[0] if request.hidden.shape else 0
    if num_rows > epoch.plan.max_rows:
        raise Refused(f"an expert request of {num_rows} rows; the plan allows {epoch.plan.max_rows}")
    hidden = from_wire(request.hidden, epoch.dtype, (num_rows, epoch.config.hidden), epoch.device)
    rows = {item.expert: _indices(item.rows, num_rows, epoch.device) for item in request.experts}
    missing = [e for e in rows if (request.block, e) not in epoch.experts.weights]
    if missing or not rows:
        raise Refused(f"expert {missing} of block {request.block} is not held here")
    outputs = epoch.experts.ask(request.block, hidden, rows)()
    wire = to_wire(torch.cat([outputs[expert] for expert in rows]))
    return pb.ExpertReply(id=request.id, outputs=wire, compute_s=time.perf_counter() - started, code=pb.OK)


def _indices(rows: Sequence[int], num_rows: int, device: torch.device) -> Tensor:
    if not rows or rows[-1] >= num_rows or any(a >= b for a, b in pairwise(rows)):
        raise Refused(f"an expert request lists rows that do not ascend, or go beyond the {num_rows} that it sent")
    return torch.tensor(list(rows), device=device)
