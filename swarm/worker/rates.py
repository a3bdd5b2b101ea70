"""What a Worker's one-row work takes while it serves, so that a Device that became slower is noticed without measuring anew.

Counted in seconds and in the bytes that were read for them: their ratio stays what it is when the Plan or a Session's
length changes, and grows when somebody else uses the Device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from swarm.reads import row_bytes
from swarm.wire.v1 import stage_pb2 as stage_pb
from swarm.wire.v1 import worker_pb2 as pb
from swarm.worker.epoch import Epoch
from swarm.worker.frames import Batch, Outcome


@dataclass
class Work:
    """Work of one kind since the process began. Only one thread adds."""

    count: int = 0
    seconds: float = 0.0
    bytes: int = 0

    def add(self, seconds: float, num_bytes: int) -> None:
        self.count += 1
        self.seconds += seconds
        self.bytes += num_bytes

    def to_wire(self) -> pb.Work:
        return pb.Work(count=self.count, seconds=self.seconds, bytes=self.bytes)


class Rates:
    """One-row work of a Worker: its own Stage's, and what it computes for others as a holder of ExpertShards."""

    def __init__(self) -> None:
        self.steps = Work()
        self.shard_steps = Work()
        self.requests = 0
        """Micro-batches and shard requests of any size that were begun."""
        self.worked_at = -float("inf")
        """When the last one began or ended, on the monotonic clock."""
        self._row = (0, 0, 0)
        """An epoch, what a row reads in it of weights, and of KV for each position."""

    def batch(self, batch: Batch, run: Callable[[], Outcome]) -> Outcome:
        """Run a micro-batch, and count it where it is one row that took no turn for another Worker's request."""
        number = self._begin()
        outcome = run()
        self.worked_at = time.monotonic()
        if batch.num_rows == 1 and outcome.done and outcome.timing and self.requests == number:
            seconds = outcome.timing.compute_s - outcome.timing.shard_wait_s
            self.steps.add(seconds, self._bytes(batch.epoch, batch.steps[0].header.position + 1))
        return outcome

    def request(
        self, request: stage_pb.ExpertRequest, epoch: Epoch, run: Callable[[], stage_pb.ExpertReply]
    ) -> stage_pb.ExpertReply:
        """Answer another Worker's request, and count it where it is one row."""
        self._begin()
        reply = run()
        self.worked_at = time.monotonic()
        if request.hidden.shape[0] == 1:
            read = sum(epoch.experts.weights[request.block, item.expert].num_bytes for item in request.experts)
            self.shard_steps.add(reply.compute_s, read)
        return reply

    def tell(self, status: pb.WorkerStatus) -> None:
        """Put what was counted into a status."""
        status.steps.CopyFrom(self.steps.to_wire())
        status.shard_steps.CopyFrom(self.shard_steps.to_wire())

    def _begin(self) -> int:
        self.requests += 1
        self.worked_at = time.monotonic()
        return self.requests

    def _bytes(self, epoch: Epoch, length: int) -> int:
        if self._row[0] != epoch.number:  # the next Stage waits meanwhile, so only once
            kv = len(epoch.blocks) * epoch.plan.model.sizes.kv(1)
            self._row = (epoch.number, row_bytes(epoch.plan, epoch.name, epoch.route), kv)
        _, weights, kv = self._row
        return weights + kv * length
