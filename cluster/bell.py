"""Wakes everybody who waits for the next change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """A bell: those who wait when it rings go on; nothing is remembered."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Set by the next ring. Take it before looking at what may change, so that no ring is lost."""
        return self._event

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until `done()`; it is asked after each ring."""
        while not done():
            await self._event.wait()
