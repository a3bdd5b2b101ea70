"""How far fetching is: bytes done of bytes in all, and how fast they come. Any thread may count."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

WINDOW_S = 10.0
"""Over which the rate is taken."""
STEP_S = 0.25


class Fetched(NamedTuple):
    """Bytes, and bytes a second."""

    done: int
    total: int
    rate: float


class Tally:
    """Counts what comes in; `done` begins with what was there already.

    Args:
        clock: seconds, growing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self.stopped = threading.Event()
        """Set by whoever wants no more of it: what fetches looks at it between two pieces."""
        self._clock = clock
        self._done = 0
        self._seen = deque([(clock(), 0)])  # (when, what had come over the network by then)
        self._came = 0
        self._lock = threading.Lock()

    def has(self, count: int) -> None:
        """So many of the bytes are here already; negative: they turned out to be worth nothing."""
        with self._lock:
            self._done += count

    def came(self, count: int) -> None:
        """So many bytes came."""
        with self._lock:
            self._done += count
            self._came += count
            now = self._clock()
            if now - self._seen[-1][0] >= STEP_S:
                self._seen.append((now, self._came))
            while now - self._seen[0][0] > WINDOW_S and len(self._seen) > 2:
                self._seen.popleft()

    @property
    def now(self) -> Fetched:
        with self._lock:
            since, before = self._seen[0]
            took = self._clock() - since
            return Fetched(self._done, self.total, (self._came - before) / took if took > 0 else 0.0)
