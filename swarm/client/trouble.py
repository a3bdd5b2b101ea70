"""What a Session does while no Route serves it: it waits for the swarm to work again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from swarm.client.plan_source import PlanSource
from swarm.errors import Moved, StepError

BACKOFF_S = (0.1, 0.2, 0.5, 1.0)
MOVED_S = 5.0
"""How long a Plan that makes a Stage answer MOVED may take to arrive before the old one is tried again."""


class Trouble:
    """Waiting for the swarm to work again, with a word to the person when it begins and when it is over."""

    def __init__(self, source: PlanSource, notify: Callable[[str], None]) -> None:
        self._source = source
        self._notify = notify
        self._since = 0.0
        self._attempts = 0
        self._told = False

    async def wait(self, error: StepError, epoch: int) -> None:
        """Wait for a newer Plan than `epoch`, or a moment for that one. Raises the error when patience is over."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > self._source.patience_s:
            raise error
        if isinstance(error, Moved) and error.epoch >= epoch:
            if not await self._newer(max(epoch, error.epoch - 1), MOVED_S) and not self._told:
                self._told = True
                self._notify("the swarm is changing its plan: waiting for the new one")
            return
        if not self._told and self._attempts:
            self._told = True
            self._notify(f"{error}; waiting for the swarm to recover")
        if not isinstance(error, Moved):  # a Worker that has yet to commit our Plan is none that failed
            await self._source.report(epoch, error.where, str(error))
        await self._newer(epoch, BACKOFF_S[min(self._attempts, len(BACKOFF_S) - 1)])
        self._attempts += 1

    def over(self) -> None:
        if self._told:
            self._notify(f"continuing after {time.monotonic() - self._since:.1f} s")

    async def _newer(self, epoch: int, seconds: float) -> bool:
        """Whether a newer Plan came within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._source.newer_than(epoch)
        except TimeoutError:
            return False
        return True
