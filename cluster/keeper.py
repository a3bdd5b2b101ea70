"""Runs one command, and ends it with everything it started as soon as the keeper's own standard input closes.

Standard input closes when the owner lets go of it, and also when the owner is killed without warning. Processes that
the command leaves behind become children of the keeper (Linux's child subreaper), so none can slip away.

    python -m cluster.keeper FOLDER COMMAND...      FOLDER is the command's own, and removed afterwards
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_S = 1.0
POLL_S = 0.05


def keep(command: Sequence[str]) -> int:
    """Run the command until it ends or standard input closes; returns its exit code, or 0 where it was ended."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    asked = _Asked()
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    )
    try:
        while child.poll() is None and not asked.to_end():
            pass
        return child.poll() or 0
    finally:
        _end(child)


class _Asked:
    """Whether the owner wants an end: standard input closed, or a signal came."""

    def __init__(self) -> None:
        self._signalled = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self._signalled = True

    def to_end(self) -> bool:
        """Look for a fraction of a second."""
        readable, _, _ = select.select([0], [], [], 0.2)
        return self._signalled or (bool(readable) and not os.read(0, 4096))


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the command, and after a while SIGKILL to whatever is left of what it started."""
    if child.poll() is None:
        child.terminate()
        deadline = time.monotonic() + GRACE_S
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
    while _reaped_some_left():
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _reaped_some_left() -> bool:
    """Collect children that ended; whether there are any others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def descendants(pid: int) -> list[int]:
    """All living processes below one, as /proc has them (man 5 proc: the parent is the fourth field of stat)."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


if __name__ == "__main__":
    code = keep(sys.argv[2:])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    sys.exit(code)
