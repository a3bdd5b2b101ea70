"""`swarm down`: stop the swarm that this rig heads.

Stop the swarm that this user heads on this rig, also one that is still starting, and wait until it is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from swarm.cli import output, settings
from swarm.cli.one_head import Head, forget_head, is_headed, noted_head
from swarm.errors import NoSwarm, SwarmError

POLITE_S = 60.0
"""How long the head may take to drain and stop before it is killed."""
POLL_S = 0.1


def down() -> None:
    """Stop the swarm that this rig heads: its Workers, its Coordinator and its Ray processes. One that starts is stopped, too."""
    here = settings.state_dir()
    runs, head = is_headed(here), noted_head(here)
    if not runs:
        forget_head(here)
        raise NoSwarm(_none(head))
    if head is None:
        raise SwarmError("a swarm of yours is starting or ending here: try again in a moment")
    if not _end(here, head, signal.SIGTERM) and not _end(here, head, signal.SIGKILL):
        raise SwarmError(f"process {head.pid} of the swarm at {head.address} does not end: look at it with `ps -p {head.pid}`")
    output.stdout().print(f"the swarm at {head.address} is down")


def _none(killed: Head | None) -> str:
    if killed is None:
        return "this rig heads no swarm: run `swarm down` on the machine and as the user that ran `swarm up`"
    return f"no swarm runs here any more: process {killed.pid}, which headed {killed.address}, is gone"


def _end(state_dir: Path, head: Head, number: signal.Signals) -> bool:
    """Send the signal; whether the head is gone within `POLITE_S`."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(head.pid, number)
    deadline = time.monotonic() + POLITE_S
    while is_headed(state_dir) and noted_head(state_dir) == head:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
