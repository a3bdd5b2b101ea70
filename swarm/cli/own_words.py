"""What other users of this machine see of a command line (`ps`, /proc/PID/cmdline)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

OPTION = "--key"
START, END = 48, 49
"""Where the kernel has the first and last byte of the arguments: fields of /proc/PID/stat (man 5 proc)."""


def hide_key() -> None:
    """Overwrite the swarm's key in this process's own arguments, where /proc shows them; Python has read them already."""
    keys = _keys(sys.argv[1:])
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        shown = Path("/proc/self/cmdline").read_bytes()
    except OSError:
        return  # a system without /proc shows nothing there
    first, end = (int(fields[n - 3]) for n in (START, END))
    if not 0 < len(shown) <= end - first:
        return
    hidden = b"\0".join(b"*" * len(word) if word in keys else _without(word, keys) for word in shown.split(b"\0"))
    ctypes.memmove(first, hidden, len(shown))


def _keys(words: Sequence[str]) -> set[bytes]:
    """The keys that `--key KEY` and `--key=KEY` give."""
    after = [word for option, word in pairwise(words) if option == OPTION]
    within = [word.partition("=")[2] for word in words if word.startswith(f"{OPTION}=")]
    return {key.encode(errors="surrogateescape") for key in (*after, *within) if key}


def _without(word: bytes, keys: set[bytes]) -> bytes:
    option, _, key = word.partition(b"=")
    return option + b"=" + b"*" * len(key) if option == OPTION.encode() and key in keys else word
