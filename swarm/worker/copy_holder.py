"""What a Worker knows of another one that holds copies of its experts: whether to ask it, and how long to wait for it."""

from __future__ import annotations

from collections import deque
from statistics import median

FIRST_S = 2.0
"""How long the first answer may take."""
FLOOR_S = 0.25
FACTOR = 8.0
RECENT = 16
AGAIN_S = 1.0
"""After a failure, how long nothing is asked: a stream to a Worker that is gone takes that long to open, at most."""


class CopyHolder:
    """Asked only while it answers: one that is silent is asked again when its late answer comes, or its stream breaks.

    The compute thread asks and waits, the loop's thread hears; each call is one step for both. Times are in seconds.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)
        """Seconds for each unit of work, as `swarm.model.spread` counts it."""
        self._owed: set[int] = set()
        self._not_before = 0.0

    def willing(self, now: float) -> bool:
        """Whether to ask it."""
        return not self._owed and now >= self._not_before

    def patience_s(self, work: int) -> float:
        """How long to wait for so much work."""
        return max(FLOOR_S, FACTOR * median(self._recent) * work) if self._recent else FIRST_S

    def asked(self, request: int) -> None:
        """It owes an answer."""
        self._owed.add(request)

    def answered(self, request: int) -> None:
        """Its answer is there, in time or not."""
        self._owed.discard(request)

    def took(self, work: int, seconds: float) -> None:
        """How long an answer took."""
        self._recent.append(seconds / work)

    def failed(self, now: float) -> None:
        """It cannot answer now: what it owes will never come."""
        self._owed.clear()
        self._not_before = now + AGAIN_S
