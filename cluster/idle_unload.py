"""Gives the memory of the model back when nobody has asked for a while: `swarm up --idle-unload`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable

from cluster.roster import Device
from swarm.plan import Plan

LOOK_S = 1.0


class IdleUnload:
    """Looks at what changes while somebody talks.

    Args:
        clock: seconds, growing.
        after_s: how long nothing may change, now; 0: for ever.
        seen: what changes with each token, and with each Plan.
        unload: gives all memory back.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        after_s: Callable[[], float],
        seen: Callable[[], Hashable],
        unload: Callable[[], Awaitable[object]],
    ) -> None:
        self._clock, self._after_s, self._seen, self._unload = clock, after_s, seen, unload
        self._last: Hashable = None
        self._since = clock()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Unload where it is time."""
        now, seen = self._clock(), self._seen()
        if seen != self._last:
            self._last, self._since = seen, now
        elif (after_s := self._after_s()) and now - self._since >= after_s:
            await self._unload()


def talked(plan: Plan | None, devices: Iterable[Device]) -> Hashable:
    """What changes with each token and each Plan; where there is no Plan it never stays the same: nothing is to be given back."""
    rows = tuple((d.name, d.status.pid, d.status.tokens) for d in devices if d.status)
    return (plan.epoch, rows) if plan else object()
