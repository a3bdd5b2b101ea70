"""A weight file's bytes, on this disk or still on the Hub: a port with two methods. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from swarm.errors import MissingWeights


class WeightFile(Protocol):
    """A file that can be read in pieces; `swarm.weights.remote_file` has the twin that is not here yet."""

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


@dataclass(frozen=True)
class LocalFile:
    """A file in a folder."""

    path: Path

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise self._unreadable(error) from None

    def read(self, offset: int, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> MissingWeights:
        return MissingWeights(f"{self.path} cannot be read ({error.strerror}): fetch the model again, whole")
