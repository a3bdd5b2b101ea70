"""One thing that a process of the swarm said."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime


@dataclass(frozen=True)
class Record:
    """A line of a log.

    Args:
        at: seconds since 1970, by the clock of its rig.
        rig: who said it, and there which process: up, join, coordinator, or the worker of a device.
        level: info, warning, error or critical.
        said: one line, never of what people asked or were answered.
        where: the module.
        trace: of an exception; empty without one.
    """

    at: float
    rig: str
    process: str
    level: str
    said: str
    where: str = ""
    trace: str = ""

    def line(self) -> str:
        """As it lies on disk: JSON, its time in UTC as people read it, nothing that is empty."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({k: v for k, v in (asdict(self) | {"at": at}).items() if v}, ensure_ascii=False)

    def by(self, rig: str, ahead_s: float) -> Record:
        """The same under the name that a rig has in its swarm, by a clock that its own is ahead of."""
        return replace(self, rig=rig, at=self.at - ahead_s)


def read_line(line: str) -> Record | None:
    """The record of a line; None where it is none, as behind a power cut."""
    try:
        raw = json.loads(line)
        at = datetime.fromisoformat(raw["at"]).timestamp()
        texts = {name: str(raw.get(name, "")) for name in ("rig", "process", "level", "said", "where", "trace")}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return Record(at, **texts)
