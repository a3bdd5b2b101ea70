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

from swarm.wire.presence import ask_presence

FLOOR_S = 2.0
"""Nobody is silent sooner."""
FEW = 4.0
"""So many recent Steps without a word are silence, where that is longer."""
ASK_AFTER, SLOW_AFTER = 0.25, 0.5
"""The shares of what is allowed after which one is asked whether it is there, and is called slow where it says so."""
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
        """Something is expected of it since then: ask it early, so that it has most of the time to answer and all of it tells."""
        now, allowed_s = time.monotonic(), self.allowed_s(num_bytes)
        began = max(since, self._heard_at)
        if self._asking is None and (self._gone or now - began > allowed_s * ASK_AFTER):  # who was silent just now is asked at once
            left_s = 0.0 if self._gone else began + allowed_s - now
            slow_from = since + allowed_s * SLOW_AFTER
            self._asking = asyncio.get_running_loop().create_task(self._ask(began, left_s, slow_from))

    def end(self) -> None:
        """Nothing is expected any more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self, began: float, seconds: float, slow_from: float) -> None:
        try:
            await ask_presence(self._ping, max(FLOOR_S / 2, seconds))
        except grpc.aio.AioRpcError as error:
            self._gone = error.code() in NOBODY and self._heard_at <= began
            if self._gone:
                self._silent(f"it said nothing for {time.monotonic() - began:.1f} s")
        else:
            if not self._slow and time.monotonic() > slow_from:
                self._slow = True
                _LOG.warning("%s is slow: nothing came of it for %.1f s, but it is there", self._what, time.monotonic() - began)
            self.heard()
        finally:
            self._asking = None
