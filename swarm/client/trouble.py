"""What a Session does while no Route serves it: it waits for the swarm to work again, and the person hears how that went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from swarm.client.plan_source import PlanSource
from swarm.errors import Lost, Moved, StepError
from swarm.plan import Plan, Route

BACKOFF_S = (0.1, 0.2, 0.5, 1.0)
MOVED_S = 5.0
"""How long a Plan that makes a Stage answer MOVED may take to arrive before the old one is tried again."""
TELL_S = 3.0
"""How long a person waits before being told why; a pause that is shorter is told when it is over."""


class Trouble:
    """Waiting for the swarm to work again, with a word to the person where it takes long, and one when it is over."""

    def __init__(self, source: PlanSource, notify: Callable[[str], None]) -> None:
        self._source = source
        self._notify = notify
        self._began = time.monotonic()
        self._since = 0.0
        self._attempts = 0
        self._rigs: dict[str, None] = {}  # those of whom a Worker was lost
        self._first: StepError | None = None
        self._told = False

    async def wait(self, error: StepError, plan: Plan | None) -> None:
        """Wait for a newer Plan, or a moment for this one. Raises the error when patience is over.

        Args:
            plan: the one that was asked last; None: none was.
        """
        epoch = plan.epoch if plan else 0
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > self._source.patience_s:
            raise error
        if isinstance(error, Moved) and error.epoch >= epoch:
            if not await self._newer(max(epoch, error.epoch - 1), MOVED_S):
                self._tell("the swarm is changing its plan")
            return
        if isinstance(error, Lost) and plan:
            self._rigs.update((w.rig, None) for w in plan.workers if w.name == error.where)
        self._first = self._first or error  # what comes later is that it is still so
        if now - self._since > TELL_S:
            self._tell(str(self._first))
        if not isinstance(error, Moved):  # a Worker that has yet to commit our Plan is none that failed
            await self._source.report(epoch, error.where, str(error))
        await self._newer(epoch, BACKOFF_S[min(self._attempts, len(BACKOFF_S) - 1)])
        self._attempts += 1

    def over(self, plan: Plan, route: Route) -> None:
        """It works again, on a Route of a Plan."""
        if not (self._rigs or self._told):
            return
        serving = list(dict.fromkeys(plan.worker(s.worker).rig for s in route.stages))
        lost = [rig for rig in self._rigs if rig not in serving]
        back = [rig for rig in self._rigs if rig in serving]
        what = "; ".join([*([f"{_and(lost)} lost"] if lost else []), *([f"a worker of {_and(back)} was lost"] if back else [])])
        self._notify(f"{what + '; ' if what else ''}continuing on {_and(serving)} ({time.monotonic() - self._began:.1f} s)")

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            now = self._source.waiting or "recovers"
            waiting = now if now.startswith("the swarm ") else f"the swarm {now}"
            self._notify(f"{why}; {waiting}; the answer goes on when it is back")

    async def _newer(self, epoch: int, seconds: float) -> bool:
        """Whether a newer Plan came within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._source.newer_than(epoch)
        except TimeoutError:
            return False
        return True


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
