"""Which Devices are paused: their people want them for something else, until they resume them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable


class Pauses:
    """Devices by their Rig's id and their own name there, so that a Rig which comes back finds them as they were.

    Args:
        text: what was kept; empty: nothing was.
        keep: takes what to keep whenever that changes.

    Raises:
        ValueError, TypeError: that is nothing that was kept.
    """

    def __init__(self, text: str = "", keep: Callable[[str], None] = lambda text: None) -> None:
        self._paused = {(str(rig_id), str(place)) for rig_id, place in json.loads(text or "[]")}
        self._keep = keep

    def has(self, rig_id: str, place: str) -> bool:
        return (rig_id, place) in self._paused

    def set(self, places: Iterable[tuple[str, str]], paused: bool) -> None:
        """Pause them, or resume them."""
        before = set(self._paused)
        self._paused = before | set(places) if paused else before - set(places)
        if self._paused != before:
            self._keep(json.dumps(sorted(self._paused)))
