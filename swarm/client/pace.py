"""How long nothing may come of a traversal before the client asks whether its Workers are there: from its own recent ones."""

from __future__ import annotations

from collections import deque
from statistics import median

FIRST_S = 5.0
"""Before anything was measured."""
FLOOR_S = 2.0
FACTOR = 8.0
RECENT = 16


class Pace:
    """The recent traversals of one client, in seconds for one row and for each row more."""

    def __init__(self) -> None:
        self._single: deque[float] = deque(maxlen=RECENT)
        self._per_row: deque[float] = deque(maxlen=RECENT)

    def took(self, rows: int, seconds: float) -> None:
        """Note a traversal."""
        (self._single if rows == 1 else self._per_row).append(seconds if rows == 1 else seconds / rows)

    def allowed(self, rows: int) -> float:
        """Seconds that a traversal of so many rows may take without a word."""
        if not self._single and not self._per_row:
            return FIRST_S
        typical = median(self._single) if self._single else 0.0
        typical += rows * (median(self._per_row) if self._per_row else typical)
        return max(FLOOR_S, FACTOR * typical)
