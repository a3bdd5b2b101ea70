"""Looks at the Plan again when enough was counted of what routers choose, while nobody talks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from cluster.planner.chosen import enough
from swarm.plan import Plan

LOOK_S = 1.0
Counts = Mapping[int, Sequence[int]]


class SecondLook:
    """One look for each set of Blocks of which enough is known: later counts of the same Blocks change nothing by themselves.

    Args:
        idle: whether nobody has talked for a while; a new epoch makes Sessions replay.
        plan: what is in force.
        counts: what routers chose under a Plan, by Block.
        would_change: whether such counts change a Plan.
        want: asks for another Plan.
    """

    def __init__(
        self,
        idle: Callable[[], bool],
        plan: Callable[[], Plan | None],
        counts: Callable[[Plan], Counts],
        would_change: Callable[[Plan, Counts], Awaitable[bool]],
        want: Callable[[], object],
    ) -> None:
        self._idle, self._plan, self._counts = idle, plan, counts
        self._would_change, self._want = would_change, want
        self._model_id = ""
        self._known: set[int] = set()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            plan = self._plan()
            if plan is not None and self._idle():
                await self.look(plan)

    async def look(self, plan: Plan) -> None:
        """Ask for another Plan where what is known of more Blocks than before would change this one."""
        if plan.model.model_id != self._model_id:
            self._model_id, self._known = plan.model.model_id, set()
        counts = self._counts(plan)
        known = {block for block, chosen in counts.items() if enough(chosen, plan.model.config.top_k)}
        if known <= self._known:
            return
        self._known |= known
        if await self._would_change(plan, counts):
            self._want()
