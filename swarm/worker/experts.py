"""ExpertShards over the network: the remote twin of `swarm.model.experts.ExpertPort`; `shards.py` is the side that serves it.

The request leaves before the local experts run and is awaited after them. Every expert gets exactly the rows that it
would get locally, and answers its unweighted outputs, so that placement never changes the numbers (promise 2).
Where all that was asked for are copies, an answer that fails or is late costs nothing but computing it here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from swarm.errors import Lost, Moved, StepError
from swarm.model.experts import LocalExperts
from swarm.model.spread import work
from swarm.wire.tensors import from_wire, to_wire
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.compute import Compute
from swarm.worker.copy_holder import CopyHolder
from swarm.worker.link import Link
from swarm.worker.near_streams import Call
from swarm.worker.peers import Peers
from swarm.worker.vigil import Vigil

PATIENCE_S = 20.0
"""How long a compute thread waits for a shard whose holder is there; one that says nothing is noticed sooner."""


class _Pending:
    """One request that the compute thread waits for."""

    def __init__(self) -> None:
        self.reply: pb.ExpertReply | None = None
        self.failure = ""
        self.asked_at = self.ready_at = time.monotonic()

    def ready(self) -> bool:
        return self.reply is not None or bool(self.failure)


class RemoteExperts:
    """The experts that one other Worker holds for Blocks of this Stage.

    Args:
        worker: its name.
        called: the same for messages, with what it has (`swarm.lost`).
        address: its own.
        peers: the way to it.
        compute: the thread that asks and waits.
        loop: the loop that owns the stream.
        frame: model id and epoch that go into each request.
        local: the experts that are here; those of them that the other Worker is asked for are copies.
    """

    def __init__(
        self,
        worker: str,
        called: str,
        address: str,
        peers: Peers,
        compute: Compute,
        loop: asyncio.AbstractEventLoop,
        frame: tuple[str, int],
        local: LocalExperts,
    ) -> None:
        self._worker, self._called = worker, called
        self._compute = compute
        self._loop = loop
        self._model_id, self._epoch = frame
        self._local = local
        self._holder = CopyHolder()
        self._pending: dict[int, _Pending] = {}
        self._next_id = 0
        self._link: Link[pb.ExpertRequest, pb.ExpertReply] = Link(
            lambda: peers.stub(address).Experts(),
            self._arrived,
            self._broken,
            lambda on_reply: peers.near(address, Call.EXPERTS, pb.ExpertReply, on_reply),
        )
        self._vigil = Vigil(called, lambda seconds: peers.stub(address).Ping(pb.PingRequest(), timeout=seconds), self._silent)
        self._closed = self._renewing = False
        self.waited_s = 0.0

    def willing(self) -> bool:
        """See `CopyPort.willing`."""
        return not self._closed and self._holder.willing(time.monotonic())

    def ask(self, block: int, hidden: Tensor, rows: Mapping[int, Tensor]) -> Callable[[], dict[int, Tensor]]:
        """Send the rows off; see `ExpertPort.ask`.

        The returned function raises Lost when no answer comes, Moved where this epoch is over, here or there.
        """
        needed = torch.cat(list(rows.values())).unique()
        request = pb.ExpertRequest(
            id=self._next_id, model_id=self._model_id, epoch=self._epoch, block=block, hidden=to_wire(hidden[needed])
        )
        for expert, indices in rows.items():
            request.experts.add(expert=expert, rows=torch.searchsorted(needed, indices).tolist())
        pending = self._pending[self._next_id] = _Pending()
        self._next_id += 1
        if not self._link.send_at_once(request):
            self._loop.call_soon_threadsafe(self._link.send, request)
        shapes = {expert: (len(indices), hidden.shape[1]) for expert, indices in rows.items()}
        if all((block, expert) in self._local.weights for expert in rows):
            return lambda: self._wait_for_copies(request.id, pending, shapes, hidden, self._local.ask(block, hidden, rows))
        return lambda: self._wait(request.id, pending, shapes, hidden, PATIENCE_S)

    def renew(self) -> None:
        """Open another stream, since there is another key, as soon as nothing is awaited on this one."""
        self._renewing = True
        self.look()

    def look(self) -> None:
        """Find out whether the holder says nothing. On the loop's thread."""
        if self._renewing and not self._pending:
            self._renewing = False
            self._link.renew()
            if self._pending:  # asked for in between, on the stream that was let go of
                self._broken("its stream was renewed")
        since = min((pending.asked_at for pending in list(self._pending.values())), default=None)
        if since is not None:
            self._vigil.look(since)

    async def close(self) -> None:
        """The epoch is over: whoever waits, or asks from now on, hears that."""
        self._closed = True
        self._vigil.end()
        await self._link.close()

    def _wait_for_copies(
        self,
        request: int,
        pending: _Pending,
        shapes: dict[int, tuple[int, int]],
        like: Tensor,
        here: Callable[[], dict[int, Tensor]],
    ) -> dict[int, Tensor]:
        """The answer, or, where it does not come soon, what the copies here give."""
        amount = sum(work(n) for n, _ in shapes.values())
        self._holder.asked(request)
        try:
            outputs = self._wait(request, pending, shapes, like, self._holder.patience_s(amount))
        except StepError:
            if pending.ready():
                self._holder.failed(time.monotonic())
            return here()
        self._holder.answered(request)
        self._holder.took(amount, pending.ready_at - pending.asked_at)
        return outputs

    def _wait(
        self, request: int, pending: _Pending, shapes: dict[int, tuple[int, int]], like: Tensor, patience_s: float
    ) -> dict[int, Tensor]:
        started = time.monotonic()
        answered = self._compute.wait_for(pending.ready, started + patience_s)
        self.waited_s += time.monotonic() - started
        self._pending.pop(request, None)  # where nothing came
        if self._closed or (pending.reply is not None and pending.reply.code == pb.MOVED):
            raise Moved(self._epoch, self._worker)
        if not answered or pending.reply is None:
            why = pending.failure or "no answer"
            raise Lost(f"{self._called} is gone, whose experts are needed ({why})", self._worker)
        if pending.reply.code != pb.OK:
            raise Lost(f"{self._called} refused an expert request: {pending.reply.message}", self._worker)
        total = sum(n for n, _ in shapes.values())
        outputs = from_wire(pending.reply.outputs, like.dtype, (total, like.shape[1]), like.device)
        return dict(zip(shapes, outputs.split([n for n, _ in shapes.values()]), strict=True))

    def _arrived(self, reply: pb.ExpertReply) -> None:
        if (pending := self._pending.pop(reply.id, None)) is not None:
            pending.reply, pending.ready_at = reply, time.monotonic()
            self._vigil.heard(pending.ready_at - pending.asked_at)
            self._compute.wake()
        self._holder.answered(reply.id)

    def _silent(self, why: str) -> None:
        self._broken(why)
        self._link.drop()

    def _broken(self, why: str) -> None:
        self._holder.failed(time.monotonic())
        for request in list(self._pending):
            if (pending := self._pending.pop(request, None)) is not None:
                pending.failure = why
        self._compute.wake()
