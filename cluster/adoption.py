"""A Coordinator that starts finds Workers that still serve a Plan, and takes it over where it is what is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from cluster.agents import Agents
from cluster.planner import Load, Prices
from cluster.roster import Device, DeviceOffer, Roster
from swarm.errors import PlacementError, SwarmError
from swarm.plan import Model, Plan, WorkerSpec

ADOPT_S = 10.0
"""How long to wait for Workers of a Plan that was found and that do not answer, from when all did last."""
ADOPT_MOST_S = 120.0
"""How long for their Rigs to join again, while all of them answer: they serve meanwhile."""
LOOK_S = 0.5
ANSWER_S = 1.0


@dataclass(frozen=True)
class Found:
    """A Plan that a Worker serves.

    Args:
        complete: all its Workers are here, where they were, and serve it.
        served: all of them serve it, those too whose Rigs are not here yet.
        waits: there is time for the others.
    """

    plan: Plan
    complete: bool
    served: bool
    waits: bool


class Adoption:
    """Looks for a Plan in what the Workers say of themselves.

    Args:
        agents: ask Workers whose Rigs have not joined again yet.
        patient: wait for the Rigs of a Plan that are missing.
    """

    def __init__(self, roster: Roster, agents: Agents, clock: Callable[[], float], patient: bool) -> None:
        self._roster, self._agents, self._clock, self._patient = roster, agents, clock, patient
        self._since = self._silent_since = 0.0

    async def find(self, patient: bool, look: Callable[[], object]) -> Found | None:
        """What the Workers that are here serve; None where that is nothing.

        Args:
            patient: there is nothing more urgent than to wait.
            look: called when it is time to look again, where there is somebody to wait for.
        """
        if (plan := self._newest()) is None:
            return None
        absent = [w for w in plan.workers if w.name not in {d.name for d in self._roster.devices()}]
        served = all(self._is_served_here(w, plan.epoch) for w in plan.workers if w not in absent)
        if absent and served:
            served = self._patient and all(await asyncio.gather(*(self._serves(w, plan.epoch) for w in absent)))
        complete = served and not absent
        return Found(plan, complete, served, not complete and patient and self._waits(served, look))

    def _newest(self) -> Plan | None:
        """The Plan with the highest epoch that a Worker serves."""
        found = []
        for device in self._roster.usable():
            if device.status and device.status.epoch in device.epochs and device.status.plan:  # else it was given back since
                try:
                    found.append(Plan.from_json(device.status.plan, f"the plan of {device.name}"))
                except PlacementError:
                    continue  # of another version: it will be prepared anew
        return max(found, key=lambda p: p.epoch, default=None)

    def _waits(self, served: bool, look: Callable[[], object]) -> bool:
        if not self._patient:
            return False
        now = self._clock()
        self._since = self._since or now
        self._silent_since = 0.0 if served else self._silent_since or now
        left = min(self._since + ADOPT_MOST_S, self._silent_since + ADOPT_S if self._silent_since else inf) - now
        if left > 0:
            asyncio.get_running_loop().call_later(min(left, LOOK_S), look)
        return left > 0

    def _is_served_here(self, worker: WorkerSpec, epoch: int) -> bool:
        here = {d.name: (d.address, d.status.epoch) for d in self._roster.usable() if d.status and d.status.epoch in d.epochs}
        return here.get(worker.name) == (worker.address, epoch)

    async def _serves(self, worker: WorkerSpec, epoch: int) -> bool:
        offer = DeviceOffer(worker.device, worker.memory_bytes, worker.address)
        agent = self._agents.plain(Device(worker.name, "", worker.rig, offer))
        try:
            status = await agent.status(ANSWER_S)
        except SwarmError:
            return False
        finally:
            await agent.close()
        return status.name == worker.name and status.epoch == epoch


def answers(plan: Plan, model: Model, load: Load) -> bool:
    """Whether a Plan is what is asked for, whoever holds it."""
    asked = (model.model_id, model.dtype, model.kv, load.sessions, Prices.of(model, load).context, load.objective)
    return (plan.model.model_id, plan.model.dtype, plan.model.kv, plan.sessions, plan.context, plan.objective) == asked
