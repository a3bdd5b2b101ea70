"""Which rows of a micro-batch belong to which Session. Rows are flat: there is no batch dimension.

R: rows of the micro-batch
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swarm.model.kernels.lanes import Lanes
from swarm.model.native.places import Sessions


@dataclass(frozen=True)
class Segment:
    """Rows `start` to `end` (exclusive) of the micro-batch are one Session's, the first of them at `position`."""

    session: bytes
    start: int
    end: int
    position: int

    @property
    def length(self) -> int:
        """Positions that the Session holds once these rows are appended."""
        return self.position + self.end - self.start


@dataclass(frozen=True)
class Rows:
    """The Segments of a micro-batch, in row order without holes."""

    segments: tuple[Segment, ...]
    device: torch.device | str = "cpu"
    lanes: Lanes | None = None
    """The same on a card whose kernels read pages; see `PagedCache.laid`."""
    sessions: Sessions | None = None
    """Those with few rows, on a CPU that has calls for them; see `PagedCache.laid`."""
    others: tuple[Segment, ...] = ()
    """The Segments that are not among `sessions`, where those are there."""

    @classmethod
    def of(cls, segments: Iterable[Segment], device: torch.device | str = "cpu") -> Rows:
        """Lay the Segments out on `device`."""
        segments = tuple(segments)
        assert all(s.start < s.end and s.position >= 0 for s in segments), "a Segment has at least one row"
        assert [s.start for s in segments] == [0, *(s.end for s in segments[:-1])], "Segments follow each other"
        return cls(segments, device)

    @cached_property
    def positions(self) -> Tensor:
        """Each row's, [R] int64."""
        if self.lanes is not None:
            return self.lanes.positions
        positions = [p for s in self.segments for p in range(s.position, s.length)]
        return torch.tensor(positions, dtype=torch.int64, device=self.device)

    @property
    def alone(self) -> bool:
        """Whether they are one row."""
        return len(self.segments) == 1 and self.segments[0].end == 1

    @property
    def end(self) -> int:
        """All positions are before this one."""
        return max(s.length for s in self.segments)
