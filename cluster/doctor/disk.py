"""Whether weights can be kept on this machine's disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.doctor.finding import Finding, fine, note, stop
from swarm.errors import gib

ABOUT = "disk"
ENOUGH_BYTES = 30 * 2**30
"""Mixtral 8x7B in int4 takes 26 GiB."""


@dataclass(frozen=True)
class Folder:
    """A folder that may not be there yet: where it would be made, whether that can be done, and the room on its disk."""

    path: str
    writable: bool
    free_bytes: int


@dataclass(frozen=True)
class DiskFacts:
    """The cache of weights, the folder of the Hub's downloads where it is another, and the one of this Rig's notes."""

    cache: Folder
    state: Folder
    hub: Folder | None = None


def read_folder(path: Path) -> Folder:
    """Of the folder itself, or of the nearest one above it that is there."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return Folder(str(path), there.is_dir() and os.access(there, os.W_OK | os.X_OK), shutil.disk_usage(there).free)


def disk_findings(facts: DiskFacts) -> Iterator[Finding]:
    if not facts.state.writable:
        yield stop(
            ABOUT, f"{facts.state.path} cannot be written, and this rig keeps its id there", "set SWARM_HOME to a folder of yours"
        )
    for folder in filter(None, (facts.cache, facts.hub)):
        room = f"{gib(folder.free_bytes)} free for {folder.path}"
        if not folder.writable:
            yield note(ABOUT, f"{folder.path} cannot be written: no weights are kept there", "name another folder with --cache")
        elif folder.free_bytes < ENOUGH_BYTES:
            yield note(ABOUT, f"{room}; Mixtral 8x7B in int4 takes 26 GiB", "make room, or name a larger disk with --cache")
        else:
            yield fine(ABOUT, room)
