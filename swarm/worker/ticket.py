"""What is still under way of one micro-batch, and how to tell where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from swarm.wire.v1 import stage_pb2 as pb


@dataclass
class Inside:
    """What Stages took for a micro-batch, in seconds."""

    all_s: float = 0.0
    """Waiting for the compute thread and computing, of all of them."""
    slowest_s: float = 0.0
    """Computing, of the one that took longest."""

    def add(self, all_s: float, slowest_s: float) -> None:
        self.all_s, self.slowest_s = self.all_s + all_s, max(self.slowest_s, slowest_s)


class Report(Protocol):
    """Told of Steps that failed, and True once nothing is under way any more, with what that took inside Stages."""

    def __call__(self, failed: list[pb.StepStatus], done: bool, inside: Inside, /) -> None: ...


class Ticket:
    """What is still under way of one micro-batch that came in, and how to tell where it came from.

    Args:
        report: called with Steps that failed, and with True once nothing is under way any more.
    """

    def __init__(self, report: Report) -> None:
        self.inside = Inside()
        self._report = report
        self._parts = 1

    def add_part(self) -> None:
        self._parts += 1

    def fail(self, statuses: list[pb.StepStatus]) -> None:
        if statuses:
            self._report(statuses, False, self.inside)

    def part_done(self) -> None:
        self._parts -= 1
        if self._parts == 0:
            self._report([], True, self.inside)
