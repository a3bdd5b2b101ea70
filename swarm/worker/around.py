"""How long a running answer is outside all Stages on its way round: on Hops, and at its client. Measured at the entry Stage.

From when a Step is sent off until its Session's next one comes, less what the Stages say they took, waiting included. Each
Stage times itself, so that clocks need not agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

KEPT = 0.8
"""How much of what was measured before counts beside a new way round."""
LOST_S = 60.0
"""What nobody reported for that much longer is not waited for."""


@dataclass
class _Way:
    sent_at: float
    round_s: float | None = None
    inside_s: float | None = None


class Around:
    """What is outside. Times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._ways: dict[bytes, _Way] = {}
        """Session → its running answer's newest way."""
        self._outside_s = 0.0
        self._slowest_s = 0.0

    @property
    def outside_s(self) -> float:
        """In the mean; 0 where nothing is measured yet."""
        return self._outside_s

    @property
    def outside(self) -> int:
        """Micro-batches that are outside while the slowest Stage computes one after the other; at least one."""
        if not self._outside_s or not self._slowest_s:
            return 1
        return max(1, math.ceil(self._outside_s / self._slowest_s))

    def sent(self, sessions: Iterable[bytes], now: float) -> None:
        """A micro-batch with Steps of these running answers is sent off."""
        self._ways.update((session, _Way(now)) for session in sessions)

    def back(self, session: bytes, now: float) -> None:
        """A running answer's next Step is there."""
        if (way := self._ways.get(session)) is not None and way.round_s is None:
            way.round_s = now - way.sent_at
            self._settle(session, way)

    def reported(self, sessions: Iterable[bytes], inside_s: float, slowest_s: float) -> None:
        """The micro-batch of these is through all Stages: what it took in all of them, and what the slowest computed."""
        if slowest_s:
            self._slowest_s = _mean(self._slowest_s, slowest_s)
        for session in sessions:
            if (way := self._ways.get(session)) is not None:
                way.inside_s = inside_s
                self._settle(session, way)

    def forget(self, before: float) -> None:
        """Give up the ways that began earlier and whose answers seem to be over."""
        lost = before - LOST_S
        self._ways = {s: w for s, w in self._ways.items() if w.sent_at >= before or (w.inside_s is None and w.sent_at >= lost)}

    def _settle(self, session: bytes, way: _Way) -> None:
        if way.round_s is not None and way.inside_s is not None:
            del self._ways[session]
            self._outside_s = _mean(self._outside_s, max(0.0, way.round_s - way.inside_s))


def _mean(before: float, new: float) -> float:
    return KEPT * before + (1 - KEPT) * new if before else new
