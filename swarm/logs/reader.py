"""Reading the logs of a rig: all of its processes, in the order of time, and then what is new."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from swarm.logs.file import ENDING
from swarm.logs.record import Record, read_line


class Reader:
    """Reads a folder of logs once from the start, and then what was added since the last look.

    Args:
        since: seconds since 1970; what is older is left out.
    """

    def __init__(self, folder: Path, since: float = 0.0) -> None:
        self._folder, self._since = folder, since
        self._read: dict[int, int] = {}  # by inode, which a file keeps when rotation renames it, the bytes that were read

    def new(self) -> list[Record]:
        """What was said since the last call, in the order of time; nothing where there is no such folder."""
        found = (read_line(line) for path in self._files() for line in self._lines(path))
        return sorted((r for r in found if r and r.at >= self._since), key=lambda r: r.at)

    def _files(self) -> list[Path]:
        return sorted([*self._folder.glob(f"*{ENDING}.1"), *self._folder.glob(f"*{ENDING}")])

    def _lines(self, path: Path) -> Iterator[str]:
        """The whole lines behind what was read of a file."""
        with suppress(OSError), path.open("rb") as file:
            about = os.fstat(file.fileno())
            at = self._read.get(about.st_ino, 0)
            if at > about.st_size:  # another file that got the number of one that is gone
                at = 0
            file.seek(at)
            whole, newline, _ = file.read(about.st_size - at).rpartition(b"\n")
            self._read[about.st_ino] = at + len(whole) + len(newline)
            yield from whole.decode(errors="replace").splitlines()
