"""A weight file's bytes, on this disk, on another Rig's or still on the Hub: a port with three methods. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Protocol

from swarm.errors import CorruptWeights, MissingWeights


class WeightFile(Protocol):
    """A file that can be read in pieces; `swarm.weights.remote_file` and `swarm.worker.weights_peer` have the twins elsewhere."""

    @property
    def path(self) -> Path:
        """Where it is; for one on the Hub, what people call it."""
        ...

    def size(self) -> int:
        """Bytes in all. Raises MissingWeights."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """That many bytes from `offset` on, fewer where the file ends. Raises MissingWeights."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of a buffer of bytes from `offset` on.

        Raises:
            MissingWeights: the file cannot be read any more.
            CorruptWeights: it ends too early.
        """
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file in a folder."""

    path: Path

    def size(self) -> int:
        try:
            found = self.path.stat()
        except OSError as error:
            raise self._unreadable(error) from None
        if not S_ISREG(found.st_mode):  # a pipe would be waited for
            raise MissingWeights(f"{self.path} is not a file: fetch the model again, whole")
        return found.st_size

    def read(self, offset: int, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise self._unreadable(error) from None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                at = 0
                while at < len(buffer):
                    count = file.readinto(buffer[at:])
                    if not count:
                        raise CorruptWeights(f"{self.path} ends inside the tensor at byte {offset + at}: fetch it again")
                    at += count
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> MissingWeights:
        return MissingWeights(f"{self.path} cannot be read ({error.strerror}): fetch the model again, whole")
