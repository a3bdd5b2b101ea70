"""A Coordinator that starts finds Workers that still serve a Plan, and takes it over where it is what is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.planner import Load, Prices
from cluster.roster import Roster
from swarm.errors import PlacementError
from swarm.plan import Model, Plan

ADOPT_S = 10.0
"""How long to wait for the other Workers of a Plan that was found."""


class Adoption:
    """Looks for a Plan in what the Workers say of themselves.

    Args:
        patient: wait for the Workers of a Plan that are missing.
    """

    def __init__(self, roster: Roster, clock: Callable[[], float], patient: bool) -> None:
        self._roster, self._clock, self._patient = roster, clock, patient
        self._since = 0.0

    def newest(self) -> Plan | None:
        """The Plan with the highest epoch that a Worker serves."""
        found = []
        for device in self._roster.usable():
            if device.status and device.status.epoch and device.status.plan:
                try:
                    found.append(Plan.from_json(device.status.plan, f"the plan of {device.name}"))
                except PlacementError:
                    continue  # of another version: it will be prepared anew
        return max(found, key=lambda p: p.epoch, default=None)

    def complete(self, plan: Plan) -> bool:
        """Whether all its Workers are here, where they were, and serve it."""
        here = {d.name: (d.address, d.status.epoch if d.status else 0) for d in self._roster.usable()}
        return all(here.get(w.name) == (w.address, plan.epoch) for w in plan.workers)

    def waits_for(self, look: Callable[[], object]) -> bool:
        """Whether to wait for more Workers; `look` is called when that time is over."""
        if not self._patient:
            return False
        if not self._since:
            self._since = self._clock()
            asyncio.get_running_loop().call_later(ADOPT_S, look)
        return self._clock() - self._since < ADOPT_S


def answers(plan: Plan, model: Model, load: Load) -> bool:
    """Whether a Plan is what is asked for, whoever holds it."""
    asked = (model.model_id, model.dtype, model.kv, load.sessions, Prices.of(model, load).context, load.objective)
    return (plan.model.model_id, plan.model.dtype, plan.model.kv, plan.sessions, plan.context, plan.objective) == asked
