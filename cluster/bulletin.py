"""What the swarm tells those who watch it: the Plan in force or why there is none, and what goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from cluster.bell import Bell
from cluster.target import Progress, Published

REPORT_S = 0.25
"""Between two reports of what is going on: people read no faster."""


class Bulletin:
    """Everybody reads it; only `Replanning` writes it. `bell` rings with each change."""

    def __init__(self) -> None:
        self.published = Published(waiting="is starting")
        self.activity = Progress("")
        self.bell = Bell()
        self.wished = False
        """Somebody asked for another model, and hears of that alone."""
        self.waking = False
        """What was unloaded comes back, since somebody asked."""
        self._reported = 0.0

    def publish(self, published: Published) -> None:
        """What clients see from now on."""
        self.published = published
        self.waking = self.waking and published.plan is None and published.waiting.startswith("is ")
        self.bell.ring()

    def report(self, message: str, fraction: float, lines: tuple[str, ...] = ()) -> None:
        """Show what planning does, as often as people read it."""
        now = asyncio.get_running_loop().time()
        if now - self._reported < REPORT_S and lines == self.activity.lines:
            return
        self._reported = now
        self.activity = Progress(message, fraction, lines=lines)
        if self.published.plan is None and not self.wished:
            self.published = replace(self.published, waiting=f"is {message}")
        self.bell.ring()

    def say(self, message: str) -> None:
        """Show what goes on beside planning, unless the swarm waits for somebody; empty: nothing any more."""
        self.activity = Progress(message)
        if message and self.published.plan is None and self.published.waiting.startswith("is ") and not self.wished:
            self.published = replace(self.published, waiting=f"is {message}")
        self.bell.ring()

    async def watch(self) -> AsyncIterator[Published]:
        """What is published now and later."""
        while True:
            rung, published = self.bell.next, self.published
            yield published
            await rung.wait()
            await self.bell.until(lambda seen=published: self.published is not seen)  # type: ignore[misc]

    async def progress(self, done: Callable[[], bool]) -> AsyncIterator[Progress]:
        """What happens until `done()`, which is asked after each ring of the bell."""
        seen = Progress("")
        while not done():
            rung = self.bell.next
            if self.activity.message and self.activity != seen:
                seen = self.activity
                yield seen
            if not done() and not rung.is_set():
                await rung.wait()
