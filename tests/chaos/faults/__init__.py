"""All faults by name. One strikes, and is over when what was done is undone: what was cut is whole, who was killed is back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from schedule import Blow

from faults import (
    cache_corrupted,
    coordinator_killed,
    disk_full,
    head_killed,
    owner_killed,
    owner_stopped,
    raylet_killed,
    rig_leaves,
    thousand_sessions,
    weather,
    worker_asked_to_end,
    worker_killed,
    worker_stopped,
)

FAULTS: Mapping[str, Callable[[Any, Blow], Awaitable[None]]] = {
    "worker killed": worker_killed.strike,
    "worker stopped": worker_stopped.strike,
    "worker asked to end": worker_asked_to_end.strike,
    "owner killed": owner_killed.strike,
    "owner stopped": owner_stopped.strike,
    "rig leaves": rig_leaves.strike,
    "coordinator killed": coordinator_killed.strike,
    "raylet killed": raylet_killed.strike,
    "head killed": head_killed.strike,
    "link cut": weather.cut,
    "link late": weather.late,
    "link narrow": weather.narrow,
    "stream torn": weather.torn,
    "answers swallowed": weather.deaf,
    "cache corrupted": cache_corrupted.strike,
    "disk full": disk_full.strike,
    "a thousand sessions": thousand_sessions.strike,
}
