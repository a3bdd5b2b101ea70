"""Where the rigs of a swarm answered when this machine last heard of them: for when the swarm's door does not say it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.cli import settings


@dataclass(frozen=True)
class RigAt:
    """A rig by its name in the swarm, and the addresses (host:port) of its Workers."""

    name: str
    workers: tuple[str, ...]


def note_rigs(swarm: str, document: Mapping[str, Any]) -> None:
    """Keep where the rigs of a swarm answer, from the document of `swarm status --json`, where that is news."""
    rigs = rigs_of(document)
    if rigs and rigs != noted_rigs(swarm):
        notes = _notes() | {swarm: {rig.name: list(rig.workers) for rig in rigs}}
        with suppress(OSError):  # what was asked for is not the note
            settings.write_private(_path(), json.dumps(notes, indent=1))


def noted_rigs(swarm: str) -> tuple[RigAt, ...]:
    """The rigs of the swarm at that address; none where nothing was noted."""
    return tuple(RigAt(name, tuple(addresses)) for name, addresses in _notes().get(swarm, {}).items())


def rigs_of(document: Mapping[str, Any]) -> tuple[RigAt, ...]:
    """The rigs in the document of `swarm status --json`."""
    found: dict[str, list[str]] = {}
    for worker in document.get("workers", ()):
        found.setdefault(worker["rig"], []).append(worker["address"])
    return tuple(RigAt(name, tuple(addresses)) for name, addresses in found.items())


def _notes() -> dict[str, dict[str, list[str]]]:
    try:
        raw = json.loads(_path().read_text(encoding="utf-8"))
        return {str(s): {str(name): [str(a) for a in at] for name, at in rigs.items()} for s, rigs in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # it is made anew


def _path() -> Path:
    return settings.state_dir() / "rigs.json"
