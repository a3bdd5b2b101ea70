"""Standard output kept for what we say: the solver under scipy prints lines of its own there, past Python."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silence() -> Iterator[None]:
    """Nothing that is written to file descriptor 1 meanwhile is seen; HiGHS leaves debugging lines there in some releases."""
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        # C keeps a buffer of its own, which would otherwise be written after all when the process ends.
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)
