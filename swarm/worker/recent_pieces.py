"""Pieces of weight files that were read of late: readers that follow each other have each from the disk, and summed up, once."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from swarm.weights.file import WeightFile
from swarm.wire.v1 import weights_pb2 as pb

MOST_BYTES = 32 << 20
"""How far readers may be apart."""


@dataclass
class RecentPieces:
    """Used on one event loop; threads read.

    Nothing is kept for one reader alone, who would wait for the system to find fresh memory all the time: half as much again of the
    processor time of a GB.

    Args:
        most_bytes: that are kept at once, beside what is being read.
    """

    most_bytes: int = MOST_BYTES
    _kept: dict[Hashable, tuple[int, asyncio.Task[pb.Piece]]] = field(default_factory=dict)
    """Bytes and piece by what was asked for, the latest at the end."""
    _readers: int = 0
    _shared: bool = False
    """Whether there were two at once since there was none."""

    @contextmanager
    def reader(self) -> Iterator[None]:
        """While somebody reads: with the last of them goes all that is kept."""
        self._readers += 1
        self._shared |= self._readers > 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._kept.clear()
                self._shared = False

    def piece(self, file: WeightFile, of: Hashable, offset: int, size: int) -> asyncio.Task[pb.Piece]:
        """A piece with its CRC-32, as soon as a thread has read it; it raises what reading raises. Shield it: others may wait too.

        Args:
            of: names the file.
        """
        asked = (of, offset, size)
        _, task = self._kept.pop(asked, (0, None))
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.create_task(asyncio.to_thread(_read, file, offset, size))
            task.add_done_callback(lambda read: read.cancelled() or read.exception())  # its reader may be gone by then
        self._kept[asked] = size, task
        self._shorten()
        return task

    def _shorten(self) -> None:
        held, most = sum(size for size, _ in self._kept.values()), self.most_bytes if self._shared else 0
        for asked in list(self._kept)[:-1]:
            if held <= most:
                return
            held -= self._kept.pop(asked)[0]


def _read(file: WeightFile, offset: int, size: int) -> pb.Piece:
    data = file.read(offset, size)
    return pb.Piece(data=data, crc32=zlib.crc32(data))
