"""The streams to the next Workers: micro-batches forward, reports backward."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from swarm.errors import Lost
from swarm.wire.status import to_step
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.link import Link
from swarm.worker.peers import Peers
from swarm.worker.ticket import Ticket


class Hops:
    """The streams to the next Workers, by address, and the micro-batches that are out on them."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._links: dict[str, Link[pb.MicroBatch, pb.Report]] = {}
        self._out: dict[int, tuple[str, Ticket, list[pb.StepHeader]]] = {}
        self._ids = itertools.count(1)

    def send(self, address: str, worker: str, frame: pb.MicroBatch, ticket: Ticket) -> None:
        """Send a micro-batch on; the ticket's part is done when its report is back or the stream breaks."""
        frame.id = next(self._ids)
        self._out[frame.id] = (address, ticket, list(frame.steps))
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
        out[1].fail(list(report.failed))
        if report.done:
            del self._out[report.id]
            out[1].part_done()

    def _broken(self, address: str, worker: str, why: str) -> None:
        lost = Lost(f"worker {worker} at {address} is gone ({why})")
        for number in [n for n, out in self._out.items() if out[0] == address]:
            _, ticket, steps = self._out.pop(number)
            ticket.fail([to_step(lost, s.session, s.serial, worker) for s in steps])
            ticket.part_done()
