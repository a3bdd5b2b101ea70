"""Watches over one other Worker while something is expected of it: whether it is slow, or says nothing at all.

Nothing is lost only because it takes long: who is overdue is asked whether it is there, which a Worker's loop answers at once
whatever its compute thread does. Silence is what comes when that is not answered either.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from statistics import median

import grpc.aio

FLOOR_S = 2.0
"""Nobody is silent sooner."""
FEW = 4.0
"""So many recent Steps without a word are silence, where that is longer."""
MOST_S = 20.0
RECENT = 16
SLOWEST_BYTES_PER_S = 125e3
"""What is on its way may take so long: 1 Mbit/s."""
NOBODY = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
_LOG = logging.getLogger(__name__)


class Vigil:
    """One for each other Worker. Lives on the loop's thread.

    Args:
        what: whom it watches over, for the log.
        ping: asks it whether it is there, in so many seconds.
        silent: told once for each silence, with a sentence on it.
    """

    def __init__(self, what: str, ping: Callable[[float], Awaitable[object]], silent: Callable[[str], None]) -> None:
        self._what, self._ping, self._silent = what, ping, silent
        self._took: deque[float] = deque(maxlen=RECENT)
        self._heard_at = -float("inf")
        self._asking: asyncio.Task[None] | None = None
        self._slow = self._gone = False

    def heard(self, took_s: float | None = None) -> None:
        """It said something. `took_s`: of what was expected, since it was asked for."""
        self._heard_at, self._gone = time.monotonic(), False
        if took_s is not None:
            self._took.append(took_s)
            self._slow = False

    def allowed_s(self, num_bytes: int = 0) -> float:
        """How long it may say nothing while so many bytes are on their way."""
        typical = median(self._took) if self._took else 0.0
        return min(MOST_S, max(FLOOR_S, FEW * typical)) + num_bytes / SLOWEST_BYTES_PER_S

    def look(self, since: float, num_bytes: int = 0) -> None:
        """Something is expected of it since then: ask it where half the time has passed, so that all of it tells."""
        now, allowed_s = time.monotonic(), self.allowed_s(num_bytes)
        began = max(since, self._heard_at)
        if (self._gone or now - began > allowed_s / 2) and self._asking is None:  # who was silent a moment ago is asked at once
            self._asking = asyncio.get_running_loop().create_task(self._ask(began, 0.0 if self._gone else began + allowed_s - now))

    def end(self) -> None:
        """Nothing is expected any more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self, began: float, seconds: float) -> None:
        try:
            await self._ping(max(FLOOR_S / 2, seconds))
        except grpc.aio.AioRpcError as error:
            self._gone = error.code() in NOBODY and self._heard_at <= began
            if self._gone:
                self._silent(f"it said nothing for {time.monotonic() - began:.1f} s")
        else:
            if not self._slow:
                _LOG.warning("%s is slow: nothing came of it for %.1f s, but it is there", self._what, time.monotonic() - began)
            self._slow = True
            self.heard()
        finally:
            self._asking = None
