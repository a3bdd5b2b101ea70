"""Decode Steps of a Stage, recorded once a size and replayed: one launch instead of hundreds that Python starts one by one.

What is recorded reads and writes memory that stays where it is: hidden states, positions and page tables are copied there, and
the result is copied out. A size is a number of rows: products of other numbers of rows may give other bits, and a Stage whose
experts are elsewhere, which is not recorded, must give the same (promise 2).

R: rows   B: rows of a size   H: hidden   P: pages that a Session may have
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.port import FEW_ROWS

_LOG = logging.getLogger(__name__)
LEAST_REACH = 1024
"""Positions: contexts are recorded for up to so many, twice as many, and so on."""
MOST_RECORDED = 16
"""Of sizes and reaches: a recording takes memory of the card that no Plan counts, said to be up to 24 MiB each. The one that was
used least lately makes room. Reasoned, not measured: no GPU has run this yet."""


class Recorder(Protocol):
    """What turns work on a card into one launch."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does the same work on the same memory, whenever it is called. Raises RuntimeError where it cannot be recorded."""
        ...


@dataclass(frozen=True)
class Room:
    """Memory that stays where it is."""

    hidden: Tensor  # [FEW_ROWS, H]
    positions: Tensor  # [FEW_ROWS] int64
    tables: Tensor  # [FEW_ROWS, P] int32
    tiles: Tensor  # [FEW_ROWS, 3] int32
    out: Tensor  # [FEW_ROWS, H]

    @classmethod
    def of(cls, h: Tensor, pages: int) -> Room:
        """For hidden states like `h`."""
        rows = torch.arange(FEW_ROWS, dtype=torch.int32, device=h.device)
        return cls(
            hidden=h.new_zeros(FEW_ROWS, h.shape[1]),
            positions=torch.zeros(FEW_ROWS, dtype=torch.int64, device=h.device),
            tables=torch.zeros(FEW_ROWS, pages, dtype=torch.int32, device=h.device),
            tiles=torch.stack((rows, rows + 1, rows), -1),
            out=h.new_zeros(FEW_ROWS, h.shape[1]),
        )

    def fill(self, h: Tensor, lanes: Lanes) -> None:
        """Copy a micro-batch in."""
        self.hidden[: h.shape[0]] = h
        self.positions[: h.shape[0]] = lanes.positions
        self.tables[: h.shape[0], : lanes.tables.shape[1]] = lanes.tables

    def lanes(self, size: int, page: int, reach: int) -> Lanes:
        """As work on the card: where the rows go follows from where they are."""
        positions, tables = self.positions[:size], self.tables[:size]
        at = tables.gather(1, (positions // page).unsqueeze(1))[:, 0].long() * page + positions % page
        return Lanes(positions, at, self.tiles[:size], tables, 1, reach)


class Replays:
    """Decode Steps of one Stage with one cache.

    Args:
        run: hidden states [B, H] of rows that come alone, each in a Session of its own, to [B, H].
        page: positions of a page.
        pages: that a Session may have.
    """

    def __init__(self, run: Callable[[Tensor, Lanes], Tensor], recorder: Recorder, page: int, pages: int) -> None:
        self._run = run
        self._recorder = recorder
        self._page = page
        self._pages = pages
        self._room: Room | None = None
        self._recorded: dict[tuple[int, int], Callable[[], None]] = {}
        self.trusted = True
        """False once a recording gave other bits, or could not be made: from then on all is computed Step by Step."""

    def takes(self, lanes: Lanes) -> bool:
        """Whether a micro-batch is one of decode Steps that can be replayed."""
        rows = lanes.positions.shape[0]
        return self.trusted and lanes.tables.shape[0] == rows <= FEW_ROWS

    def forward(self, h: Tensor, lanes: Lanes) -> Tensor:
        """`h` [R, H] to [R, H]."""
        size = h.shape[0]
        key = size, max(LEAST_REACH, _power(lanes.reach))
        if self._room is None:
            self._room = Room.of(h, self._pages)
        self._room.fill(h, lanes)
        if key not in self._recorded and not self._record(self._room, *key):
            return self._run(h, lanes)
        self._recorded[key] = replay = self._recorded.pop(key)  # in the order in which they were used
        replay()
        return self._room.out[:size].clone()

    def _record(self, room: Room, size: int, reach: int) -> bool:
        """Record a size, and see that it gives the bits that it is recorded from."""

        def work() -> None:
            room.out[:size] = self._run(room.hidden[:size], room.lanes(size, self._page, reach))

        while len(self._recorded) >= MOST_RECORDED:
            del self._recorded[next(iter(self._recorded))]
        work()
        want = room.out[:size].clone()
        try:
            replay = self._recorder.record(work)
            room.out.zero_()
            replay()
            same = torch.equal(_bits(room.out[:size]), _bits(want))
        except RuntimeError as error:
            _LOG.warning("decode Steps of %d rows cannot be recorded (%s): they are started kernel by kernel", size, error)
            same = False
        else:
            if same:
                self._recorded[size, reach] = replay
            else:
                _LOG.warning("decode Steps of %d rows gave other bits recorded: they are started kernel by kernel", size)
        if not same:
            self.trusted = False
            self._recorded.clear()
        return same


def _bits(x: Tensor) -> Tensor:
    """As whole numbers: what is no number equals itself, too."""
    return x.view(torch.int32 if x.element_size() == 4 else torch.int16)


def _power(count: int) -> int:
    """The least power of two that is not less."""
    return 1 << (count - 1).bit_length()
