"""A Step that waits at the entry Stage for its micro-batch; pieces of a prompt become one Step again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from swarm.plan import PIECE_ROWS
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.callers import Caller
from swarm.worker.outbox import Outbox

Reports = Outbox[pb.Report]
"""What one client's stream is told."""


def is_answering(header: pb.StepHeader) -> bool:
    """Whether a Step is a running answer's: a new token or a draft, of which every row is asked. What is larger is a prompt."""
    return len(header.tokens) <= PIECE_ROWS and header.ask.rows == len(header.tokens)


@dataclass
class WaitingStep:
    """A Step that waits for its micro-batch."""

    header: pb.StepHeader
    frame: tuple[str, int, int]
    """Model id, epoch and route that it was sent with."""
    came_at: float
    """Of time.monotonic, as is its deadline."""
    deadline: float
    reports: Reports
    caller: Caller
    """Whose it is."""
    num_bytes: int = 0

    @property
    def session(self) -> bytes:
        return self.header.session

    @property
    def serial(self) -> int:
        return self.header.serial

    @property
    def num_rows(self) -> int:
        return len(self.header.tokens)

    @property
    def answering(self) -> bool:
        return is_answering(self.header)

    def goes_on(self, before: Self) -> bool:
        """Whether it may be one Step with the one before it: that is a piece, and nothing is asked of it, so nobody misses it."""
        piece = before.num_rows == PIECE_ROWS and not before.header.ask.rows
        alike = self.frame == before.frame and self.header.stages == before.header.stages
        return piece and alike and self.header.position == before.header.position + PIECE_ROWS

    def overtakes(self, before: Self) -> bool:
        """Whether another one's rows are forgotten with it: it is newer, and begins where that does or before."""
        return self.serial > before.serial and self.header.position <= before.header.position

    def counts(self, times: int) -> None:
        """Count it as waiting, once more or (-1) no more."""
        self.caller.rows += times * self.num_rows
        self.caller.num_bytes += times * self.num_bytes

    @classmethod
    def of(cls, pieces: Sequence[WaitingStep]) -> WaitingStep:
        """Pieces that go on one behind the other as one Step: with the first one's position, and the last one's serial and ask."""
        first, last = pieces[0], pieces[-1]
        if first is last:
            return first
        header = pb.StepHeader()
        header.CopyFrom(last.header)
        header.position, header.prefix_hash = first.header.position, first.header.prefix_hash
        header.tokens[:] = [token for piece in pieces for token in piece.header.tokens]
        return replace(last, header=header, came_at=first.came_at)
