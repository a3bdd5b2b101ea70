"""Ranges of ports for the tests of one process: no other process of the tests has them while it lives."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

HOST = "127.0.0.1"
NUM_PORTS = 32
"""Ports of one range."""
FIRSTS = range(20000, 32000, NUM_PORTS)
"""Below the ports that the kernel hands out to whoever connects."""
KEPT = 20
"""Ranges that a process claims before it uses its oldest again."""
_claims: dict[int, int] = {}
"""The descriptor that holds the lock of each claimed range, by its first port; the one handed out last stands last."""
_single: list[Iterator[int]] = []
"""The range that is handed out port by port, if there is one yet."""


def claimed_range() -> range:
    """A range in which nobody listens now, and which another caller gets only after many others."""
    old = [first for first in _claims if len(_claims) >= KEPT and _is_free(first)]
    first = old[0] if old else next(first for first in FIRSTS if first not in _claims and _is_claimed(first))
    _claims[first] = _claims.pop(first)
    return range(first, first + NUM_PORTS)


def claimed_port() -> int:
    """A port of loopback that nobody listens on now; of a claimed range, one after the other."""
    while True:
        port = next(_single[0], None) if _single else None
        if port is None:
            _single[:] = [iter(claimed_range())]
        elif _is_free(port, 1):
            return port


def range_text(ports: range) -> str:
    """As the option `--ports` wants it."""
    return f"{ports[0]}-{ports[-1]}"


def free_range() -> str:
    """A claimed range as the option `--ports` wants it."""
    return range_text(claimed_range())


def _is_claimed(first: int) -> bool:
    folder = Path(tempfile.gettempdir()) / f"swarm-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder / str(first), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    if not _is_free(first):
        os.close(descriptor)
        return False
    _claims[first] = descriptor
    return True


def _is_free(first: int, count: int = NUM_PORTS) -> bool:
    with ExitStack() as held:
        try:
            for port in range(first, first + count):
                held.enter_context(socket.create_server((HOST, port)))
        except OSError:
            return False
    return True
