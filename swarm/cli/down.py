"""`swarm down`: stop the swarm that this rig heads."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

from swarm.cli import output, settings
from swarm.errors import NoSwarm, SwarmError

POLITE_S = 60.0
"""How long the head may take to drain and stop before it is killed."""
POLL_S = 0.1


def down() -> None:
    """Stop the swarm that this rig heads: its Workers, its Coordinator and its Ray processes."""
    note = settings.state_dir() / "head.json"
    pid, address = _read(note)
    if not _is_swarm(pid):
        note.unlink(missing_ok=True)
        raise NoSwarm(f"no swarm runs here any more: process {pid}, which headed {address}, is gone")
    if not _end(pid, signal.SIGTERM) and not _end(pid, signal.SIGKILL):
        raise SwarmError(f"process {pid} of the swarm at {address} does not end: look at it with `ps -p {pid}`")
    note.unlink(missing_ok=True)
    output.stdout().print(f"the swarm at {address} is down")


def _read(note: Path) -> tuple[int, str]:
    """Process id and address from `head.json`, which `swarm up` writes: {"pid": 123, "address": "host:port"}."""
    try:
        raw = json.loads(note.read_text(encoding="utf-8"))
        return int(raw["pid"]), str(raw["address"])
    except FileNotFoundError:
        raise NoSwarm("this rig heads no swarm: run `swarm down` on the machine and as the user that ran `swarm up`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SwarmError(f"{note} cannot be read ({error}): end `swarm up` with Ctrl-C and delete that file") from None


def _is_swarm(pid: int) -> bool:
    """Whether that process still runs, and is not another program that got its number since."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    return any(Path(word).name == "swarm" or word.startswith("swarm.cli") for word in words)


def _end(pid: int, number: signal.Signals) -> bool:
    """Send the signal; whether the process ends within `POLITE_S`."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    deadline = time.monotonic() + POLITE_S
    # A zombie has no command line any more: it is gone, its parent has only not noticed.
    while _is_swarm(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
