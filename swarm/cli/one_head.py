"""One swarm a user and machine: `swarm up` holds a lock as long as it runs, so that `swarm down` and `swarm chat` mean that one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from swarm.cli import settings
from swarm.errors import SwarmError


@dataclass(frozen=True)
class Head:
    """Who heads a swarm here: the process of `swarm up`, and the swarm's host:port."""

    pid: int
    address: str


@contextmanager
def one_head(state_dir: Path, address: str) -> Iterator[None]:
    """Be the one `swarm up` of this user, and say so in `head.json`. The lock goes with the process, however that ends.

    Raises:
        SwarmError: another one runs.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(state_dir / "head.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(file):
            raise SwarmError(_already(state_dir))
        settings.write_private(_note(state_dir), json.dumps(asdict(Head(os.getpid(), address))))
        try:
            yield
        finally:
            forget_head(state_dir)
    finally:
        os.close(file)


def is_headed(state_dir: Path) -> bool:
    """Whether a `swarm up` of this user runs now. The note alone does not say: one that was killed leaves it."""
    try:
        file = os.open(state_dir / "head.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(file)
    finally:
        os.close(file)


def noted_head(state_dir: Path) -> Head | None:
    """The latest head that did not end by itself. Raises SwarmError where its note cannot be read."""
    note = _note(state_dir)
    try:
        raw = json.loads(note.read_text(encoding="utf-8"))
        return Head(int(raw["pid"]), str(raw["address"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SwarmError(f"{note} cannot be read ({error}): end `swarm up` with Ctrl-C and delete that file") from None


def forget_head(state_dir: Path) -> None:
    """Remove the note."""
    _note(state_dir).unlink(missing_ok=True)


def _lock(file: int) -> bool:
    """Take the lock that a running head holds; whether it was free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(state_dir: Path) -> Path:
    return state_dir / "head.json"


def _already(state_dir: Path) -> str:
    head = noted_head(state_dir)
    if head is None:
        return "a swarm of yours is starting or ending here: wait for it, or end the other `swarm up` with Ctrl-C"
    return (
        f"a swarm of yours runs here already, at {head.address}: give it more devices with `swarm join {head.address}`, "
        "another model with `swarm load MODEL`, or end it with `swarm down`"
    )
