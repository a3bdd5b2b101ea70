"""What is still under way of one micro-batch, and how to tell where it came from."""

from __future__ import annotations

from collections.abc import Callable

from swarm.wire.v1 import stage_pb2 as pb

Report = Callable[[list[pb.StepStatus], bool], None]
"""Told of Steps that failed, and True once nothing is under way any more."""


class Ticket:
    """What is still under way of one micro-batch that came in, and how to tell where it came from.

    Args:
        report: called with Steps that failed, and with True once nothing is under way any more.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._parts = 1

    def add_part(self) -> None:
        self._parts += 1

    def fail(self, statuses: list[pb.StepStatus]) -> None:
        if statuses:
            self._report(statuses, False)

    def part_done(self) -> None:
        self._parts -= 1
        if self._parts == 0:
            self._report([], True)
