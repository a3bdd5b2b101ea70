"""Which rigs a swarm has and where they answer: what their disks hold is asked of a Worker of each, Coordinator or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.cli import options, settings
from swarm.cli.status import ask
from swarm.errors import Expired, NoSwarm


@dataclass(frozen=True)
class RigAt:
    """A rig by its name in the swarm, and the addresses (host:port) of its Workers."""

    name: str
    workers: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """The rigs of a swarm; `silence`: why its door does not say so itself, and a note of this machine does. Empty: it did."""

    rigs: tuple[RigAt, ...]
    silence: str = ""


async def known_rigs(target: options.Target) -> Known:
    """The rigs that a swarm has now, or had when this machine last heard of them. Raises what `ask` does where there is no note."""
    try:
        document = await ask(target)
    except (NoSwarm, Expired) as error:
        noted = _noted(target.address)
        if not noted:
            raise
        return Known(noted, str(error))
    note_rigs(target.address, document)
    return Known(_rigs(document))


def note_rigs(swarm: str, document: Mapping[str, Any]) -> None:
    """Keep where the rigs of a swarm answer, from the document of `swarm status --json`, where that is news."""
    rigs = _rigs(document)
    if rigs and rigs != _noted(swarm):
        notes = _notes() | {swarm: {rig.name: list(rig.workers) for rig in rigs}}
        with suppress(OSError):  # what was asked for is not the note
            settings.write_private(_path(), json.dumps(notes, indent=1))


def _rigs(document: Mapping[str, Any]) -> tuple[RigAt, ...]:
    found: dict[str, list[str]] = {}
    for worker in document.get("workers", ()):
        found.setdefault(worker["rig"], []).append(worker["address"])
    return tuple(RigAt(name, tuple(addresses)) for name, addresses in found.items())


def _noted(swarm: str) -> tuple[RigAt, ...]:
    return tuple(RigAt(name, tuple(addresses)) for name, addresses in _notes().get(swarm, {}).items())


def _notes() -> dict[str, dict[str, list[str]]]:
    try:
        raw = json.loads(_path().read_text(encoding="utf-8"))
        return {str(s): {str(name): [str(a) for a in at] for name, at in rigs.items()} for s, rigs in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # it is made anew


def _path() -> Path:
    return settings.state_dir() / "rigs.json"
