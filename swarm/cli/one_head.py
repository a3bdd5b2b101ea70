"""One swarm a user and machine: `swarm up` holds a lock as long as it runs, so that `swarm down` and `swarm chat` mean that one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.errors import SwarmError


@contextmanager
def one_head(state_dir: Path) -> Iterator[None]:
    """Be the one `swarm up` of this user. The lock goes with the process, however that ends.

    Raises:
        SwarmError: another one runs.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(state_dir / "head.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SwarmError(_already(state_dir / "head.json")) from None
    finally:
        os.close(file)


def _already(note: Path) -> str:
    try:
        address = str(json.loads(note.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return "a swarm of yours is starting or ending here: wait for it, or end the other `swarm up` with Ctrl-C"
    return (
        f"a swarm of yours runs here already, at {address}: give it more devices with `swarm join {address}`, "
        "another model with `swarm load MODEL`, or end it with `swarm down`"
    )
