"""Unix sockets between Workers of one rig: where they are, and whether they can be trusted to be ours.

A Worker listens there beside its port, with the same credentials: who connects shows the same papers as from afar. The folder
is its user's alone (mode 0700), so that nobody else can put a socket there. At a second socket it takes the streams of its rig's
other Workers.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

ROOT = Path("/tmp")
STREAMS = ".streams"


def address_of(worker: str, port: int, root: Path = ROOT) -> str | None:
    """Where that Worker listens on this machine, as gRPC names it; None where it does not."""
    path = _path(worker, port, root)
    return f"unix:{path}" if _is_ours(path.parent) and _is_heard(path) else None


def address_for(worker: str, port: int, root: Path = ROOT) -> str | None:
    """Where a Worker may listen beside its port; None where there is no folder that is its user's alone."""
    path = _path(worker, port, root)
    return f"unix:{path}" if _is_free(path) else None


def streams_of(worker: str, port: int, root: Path = ROOT) -> Path | None:
    """Where that Worker may take streams of its rig's other Workers (`swarm.worker.near_streams`); None where it does not."""
    path = _path(worker, port, root).with_suffix(STREAMS)
    return path if _is_ours(path.parent) and path.exists() else None


def streams_for(worker: str, port: int, root: Path = ROOT) -> Path | None:
    """Where a Worker may take such streams; None where there is no folder that is its user's alone."""
    path = _path(worker, port, root).with_suffix(STREAMS)
    return path if _is_free(path) else None


def port_of(address: str) -> int:
    """Of host:port; 0 where that has none, where nobody listens."""
    port = address.rpartition(":")[2]
    return int(port) if port.isdecimal() else 0


def _path(worker: str, port: int, root: Path) -> Path:
    name = hashlib.sha256(f"{worker}:{port}".encode()).hexdigest()[:32]
    return root / f"swarm-{os.getuid()}" / name


def _is_free(path: Path) -> bool:
    """Make room for a socket; False where its folder cannot be its user's alone."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if _is_ours(path.parent):
            path.unlink(missing_ok=True)  # of one that was killed
            return True
    return False


def _is_heard(path: Path) -> bool:
    """Whether somebody listens at a socket: one that was killed leaves its file behind."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)  # the kernel answers at once
        return asking.connect_ex(str(path)) == 0


def _is_ours(folder: Path) -> bool:
    """Whether a folder is no link, this user's, and nobody else's to look into."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700
