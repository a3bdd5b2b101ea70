"""The streams to the next Workers: micro-batches forward, reports backward."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from swarm.lost import lost
from swarm.plan import Plan
from swarm.wire.status import to_step
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.link import Link
from swarm.worker.near_streams import Call
from swarm.worker.peers import Peers
from swarm.worker.rates import Work
from swarm.worker.ticket import Ticket
from swarm.worker.vigil import Vigil


class Out(NamedTuple):
    """A micro-batch that went on and is not reported done: where to, under which Plan, since when, and of which Steps."""

    address: str
    plan: Plan
    worker: str
    ticket: Ticket
    steps: Sequence[pb.StepHeader]
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
        self._vigils: dict[str, Vigil] = {}
        self._out: dict[int, Out] = {}
        self._to_renew: set[str] = set()
        """Addresses whose streams were opened with another key, and are still waited on."""
        self._held: list[tuple[pb.MicroBatch, Out]] = []
        """What goes there once they are renewed: on two streams at once one micro-batch of a Session might overtake another."""
        self._ids = itertools.count(1)

    def send(self, plan: Plan, worker: str, frame: pb.MicroBatch, ticket: Ticket) -> None:
        """Send a micro-batch on; the ticket's part is done when its report is back, or nobody is there to make one."""
        frame.id, address = next(self._ids), plan.worker(worker).address
        out = Out(address, plan, worker, ticket, frame.steps, frame.hidden.ByteSize(), time.monotonic())
        if address in self._to_renew:
            self._held.append((frame, out))
        else:
            self._send(frame, out)

    def look(self) -> None:
        """Find next Workers that say nothing."""
        for address, vigil in self._vigils.items():
            waiting = [out for out in self._out.values() if out.address == address]
            if waiting:
                vigil.look(min(out.since for out in waiting), sum(out.num_bytes for out in waiting))

    def renew(self) -> None:
        """Open other streams, since there is another key: each as soon as nothing is out on it, which what comes next waits for."""
        self._to_renew = set(self._links)
        for address in list(self._links):
            self._renew_idle(address)

    async def keep_only(self, addresses: Collection[str]) -> None:
        """End the streams to all others."""
        for address in self._links.keys() - set(addresses):
            self._vigils.pop(address).end()
            await self._links.pop(address).close()

    def _send(self, frame: pb.MicroBatch, out: Out) -> None:
        self._out[frame.id] = out
        self._link(out.address, out.worker).send(frame)

    def _link(self, address: str, worker: str) -> Link[pb.MicroBatch, pb.Report]:
        if address not in self._links:
            peers = self._peers
            self._links[address] = Link(
                lambda: peers.stub(address).Hop(),
                self._reported,
                lambda why: self._broken(address, why),
                lambda on_reply: peers.near(address, Call.HOP, pb.Report, on_reply),
            )
            self._vigils[address] = Vigil(
                f"worker {worker}",
                lambda seconds: peers.stub(address).Ping(pb.PingRequest(), timeout=seconds),
                lambda why: self._silent(address, why),
            )
        return self._links[address]

    def _reported(self, report: pb.Report) -> None:
        if (out := self._out.get(report.id)) is None:
            return
        out.ticket.fail(list(report.failed))
        took_s = time.monotonic() - out.since
        self._vigils[out.address].heard(took_s if report.done else None)
        if report.done:
            del self._out[report.id]
            out.ticket.inside.add(report.inside_s, report.slowest_s)
            self.work.add(max(0.0, took_s - report.held_s), out.num_bytes)
            out.ticket.part_done()
            self._renew_idle(out.address)

    def _renew_idle(self, address: str) -> None:
        if address in self._to_renew and not any(out.address == address for out in self._out.values()):
            self._to_renew.discard(address)
            if address in self._links:
                self._links[address].renew()
            for frame, out in self._taken_back(address):
                self._send(frame, out._replace(since=time.monotonic()))

    def _taken_back(self, address: str) -> list[tuple[pb.MicroBatch, Out]]:
        """What is held for there, and no more from now on."""
        held = [(frame, out) for frame, out in self._held if out.address == address]
        self._held = [(frame, out) for frame, out in self._held if out.address != address]
        return held

    def _silent(self, address: str, why: str) -> None:
        self._broken(address, why)
        if address in self._links:
            self._links[address].drop()

    def _broken(self, address: str, why: str) -> None:
        self._to_renew.discard(address)
        broken = [self._out.pop(number) for number in [n for n, out in self._out.items() if out.address == address]]
        for out in [*broken, *(out for _, out in self._taken_back(address))]:
            gone = lost(out.plan, out.worker, why)
            out.ticket.fail([to_step(gone, s.session, s.serial, out.worker) for s in out.steps])
            out.ticket.part_done()
