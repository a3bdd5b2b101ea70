"""One fault from beginning to end: chats go on, it strikes, they go on, and then all is looked at."""

from __future__ import annotations

import asyncio
import time

from census import Snapshot, left_over
from chats import Chats, Told
from faults import FAULTS
from faults.swarm_port import Swarm
from results import Result
from schedule import Blow

RECOVER_S = 150.0
"""After which what is not answered counts as lost."""
SETTLE_S = 90.0
"""Longer than the Sessions of a client that is gone are kept (`swarm.worker.callers.ABANDONED_S`), and than LEASE_S."""
LEASE_S = 25.0
"""Of the Sessions of the chats, for what a Worker that was away when it was given back gives back by itself."""
POLL_S = 0.1
ANSWERED = 3
"""Moments that are noted until all answered anew."""


class Hung(Exception):
    """Something did not come back: this swarm is of no use for another fault."""

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__("; ".join([*result.lost, *result.left_over]))


class Round:
    """Of one swarm and the chats in it; `before` is how it looked at rest."""

    def __init__(self, swarm: Swarm, chats: Chats, before: Snapshot) -> None:
        self._swarm, self._chats, self._before = swarm, chats, before

    async def of(self, blow: Blow) -> Result:
        """Raises Hung."""
        times: list[float] = []
        try:
            async with asyncio.timeout(RECOVER_S):
                await self._strike(blow, times)
        except (TimeoutError, AssertionError) as error:
            open_ones = [f"{len(t.tokens)} of {len(t.question.answer)} tokens" for t in self._chats.under_way()]
            why = f"{type(error).__name__} {error} {RECOVER_S:.0f} s; answers under way: {', '.join(open_ones) or 'none'}"
            lost, left = ([why], []) if len(times) < ANSWERED else ([], [why])  # all answered, but the swarm is not what it was
            raise Hung(self._result(blow, self._chats.take(), times, lost, left)) from error
        return self._result(blow, self._chats.take(), times, [], await self._settled())

    async def _strike(self, blow: Blow, times: list[float]) -> None:
        """Notes when it began, when it was over, and when all had answered anew."""
        self._chats.go()
        await self._chats.reach(blow.tokens)
        times.append(time.monotonic())
        await FAULTS[blow.kind](self._swarm, blow)
        times.append(time.monotonic())
        await self._chats.all_answer_anew()
        times.append(time.monotonic())
        await self._chats.rest()  # first: a Worker that serves without a pause is not measured
        await self._swarm.whole()
        times.append(time.monotonic())

    async def _settled(self) -> list[str]:
        """What is left over, once that no longer changes for the better."""
        deadline = time.monotonic() + SETTLE_S
        while left := left_over(self._before, await self._swarm.look()):
            if time.monotonic() > deadline:
                return left
            await asyncio.sleep(POLL_S)
        return []

    @staticmethod
    def _result(blow: Blow, told: list[Told], times: list[float], hung: list[str], left: list[str]) -> Result:
        now = time.monotonic()
        since, healed, answered, whole = [*times, *[now] * 4][:4]
        return Result(
            blow.seed, blow.number, blow.shape, blow.kind,
            answers=sum(t.over for t in told),
            changed=sum(t.over and not t.error and not t.as_it_should_be for t in told),
            lost=(*(t.error for t in told if t.error), *hung),
            left_over=tuple(left),
            pause_s=round(max((t.longest_pause(since) for t in told), default=0.0), 3),
            held_s=round(healed - since, 3), took_s=round(answered - since, 3),
            whole_s=round(whole - answered, 3), settled_s=round(now - whole, 3), at_s=round(time.time() - now + since, 3),
        )  # fmt: skip
