"""What the swarm is asked to hold, and what it publishes to those who watch."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.agents import Description
from cluster.planner import Load
from swarm.plan import Plan


@dataclass(frozen=True)
class Target:
    """A model, what to budget KV for, and what to decide the Plan for (see `Load`)."""

    source: str
    dtype: str = "auto"
    sessions: int = 4
    context: int = 8192
    spread: bool = False
    objective: str = "balanced"
    standby: bool = False
    kv: str = ""
    """How keys and values are kept, one of `swarm.config.KV_DTYPES`."""
    unloaded: bool = False
    """Nothing of it is held until somebody asks: its memory was given back."""

    idle_unload_s: float = 0.0
    """Give its memory back when nobody asked for so long; 0: never."""

    @property
    def load(self) -> Load:
        return Load(self.sessions, self.context, self.spread, self.objective, self.standby)


@dataclass(frozen=True)
class Published:
    """The Plan in force, or why there is none: `waiting` goes on where "the swarm" was said, as in `needs 26.1 GiB, has 22.4`."""

    plan: Plan | None = None
    waiting: str = ""
    description: Description | None = None


@dataclass(frozen=True)
class Progress:
    """One thing that happened, for people."""

    message: str
    fraction: float = 0.0
    done: bool = False
    lines: tuple[str, ...] = ()
    """What each Rig fetches from where; said with each message while it does."""
