"""A Worker that somebody stopped (SIGSTOP) ends with its owner all the same."""

from __future__ import annotations

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2): which signal a process is sent when the one that started it ends."""


def go_on_without_owner() -> None:
    """Be continued when the owner ends, and find standard input closed then; on Linux, for nothing else can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT)
