"""The most that a cache may take of its disk. It is kept in the cache's folder, since all Workers of a Rig share that.

Where it would be exceeded, models go whole, the least recently used first, and never one that somebody uses: whoever uses one has
a shared lock on its `about.json` (flock, so that the kernel takes it back however he ends). Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from swarm.errors import gib
from swarm.weights.cache.folder import ABOUT, Kept, kept

LIMIT = "limit"
"""The file with it, in bytes."""
SHARE = 8
"""One of so many parts of what is left may be written before it is counted anew: others write, too."""


def read_limit(cache: Path) -> int:
    """Bytes; 0: there is none, or the file makes no sense."""
    try:
        return max(0, int((cache / LIMIT).read_text(encoding="ascii")))
    except (OSError, ValueError):
        return 0


def write_limit(cache: Path, num_bytes: int) -> None:
    """From now on for all who use this cache; 0: no limit. Raises OSError."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = cache / f".unfinished-{LIMIT}-{os.getpid()}"
    scratch.write_text(str(num_bytes), encoding="ascii")
    scratch.replace(cache / LIMIT)


def use(folder: Path) -> BinaryIO:
    """Keep one model's folder from being evicted until this is closed. Waits for who evicts it now. Raises OSError."""
    while True:
        about = (folder / ABOUT).open("rb")
        try:
            fcntl.flock(about, fcntl.LOCK_SH)
            if os.fstat(about.fileno()).st_nlink:
                return about
        except OSError:
            about.close()
            raise
        about.close()  # it was evicted meanwhile


@dataclass
class Allowance:
    """What one loading thread may still write."""

    cache: Path
    _uncounted: int = 0
    """Bytes that may be written before all is counted again."""

    def make_room(self, size: int) -> list[Kept]:
        """Evict what must go for so many bytes more; what went is the answer.

        Raises:
            OSError: the limit does not allow them, whatever goes that nobody uses; or it cannot be deleted.
        """
        if 0 < size <= self._uncounted:
            self._uncounted -= size
            return []
        limit = read_limit(self.cache)
        if not limit:
            return []
        found = kept(self.cache)
        room, gone = limit - sum(k.num_bytes for k in found) - size, list[Kept]()
        for each in reversed(found):
            if room >= 0:
                break
            if evict(each.path):
                gone.append(each)
                room += each.num_bytes
        if room < 0:
            raise OSError(errno.EDQUOT, f"what is in use and this would exceed its limit of {gib(limit)}: raise --cache-limit")
        self._uncounted = room // SHARE
        return gone


def evict(folder: Path) -> bool:
    """Delete one model's folder; False where somebody uses it. Raises OSError."""
    try:
        about = (folder / ABOUT).open("rb")
    except FileNotFoundError:  # nobody can have locked it
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    with about:
        try:
            fcntl.flock(about, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        shutil.rmtree(folder)
        with suppress(OSError):  # another setting of this model is there
            folder.parent.rmdir()
    return True
