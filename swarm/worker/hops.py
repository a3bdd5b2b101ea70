"""The streams to the next Workers: micro-batches forward, reports backward."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection
from dataclasses import dataclass

from swarm.errors import Lost
from swarm.wire.status import to_step
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.link import Link
from swarm.worker.peers import Peers
from swarm.worker.rates import Work
from swarm.worker.ticket import Ticket


@dataclass(frozen=True)
class Out:
    """A micro-batch that went on and is not reported done: where to, since when, and of which Steps."""

    address: str
    ticket: Ticket
    steps: list[pb.StepHeader]
    num_bytes: int
    since: float


class Hops:
    """The streams to the next Workers, by address, and the micro-batches that are out on them.

    `work` counts what the Hops themselves took, there and back: queues, gRPC and network, but nothing that the next
    Worker did in between. Both ends time on their own clock, so that the clocks need not agree.
    """

    def __init__(self, peers: Peers) -> None:
        self.work = Work()
        self._peers = peers
        self._links: dict[str, Link[pb.MicroBatch, pb.Report]] = {}
        self._out: dict[int, Out] = {}
        self._ids = itertools.count(1)

    def send(self, address: str, worker: str, frame: pb.MicroBatch, ticket: Ticket) -> None:
        """Send a micro-batch on; the ticket's part is done when its report is back or the stream breaks."""
        frame.id = next(self._ids)
        self._out[frame.id] = Out(address, ticket, list(frame.steps), frame.hidden.ByteSize(), time.monotonic())
        self._link(address, worker).send(frame)

    async def keep_only(self, addresses: Collection[str]) -> None:
        """End the streams to all others."""
        for address in self._links.keys() - set(addresses):
            await self._links.pop(address).close()

    def _link(self, address: str, worker: str) -> Link[pb.MicroBatch, pb.Report]:
        if address not in self._links:
            hop = self._peers.stub(address).Hop
            self._links[address] = Link(hop, self._reported, lambda why: self._broken(address, worker, why))
        return self._links[address]

    def _reported(self, report: pb.Report) -> None:
        if (out := self._out.get(report.id)) is None:
            return
        out.ticket.fail(list(report.failed))
        if report.done:
            del self._out[report.id]
            self.work.add(max(0.0, time.monotonic() - out.since - report.held_s), out.num_bytes)
            out.ticket.part_done()

    def _broken(self, address: str, worker: str, why: str) -> None:
        lost = Lost(f"worker {worker} at {address} is gone ({why})")
        for number in [n for n, out in self._out.items() if out.address == address]:
            out = self._out.pop(number)
            out.ticket.fail([to_step(lost, s.session, s.serial, worker) for s in out.steps])
            out.ticket.part_done()
