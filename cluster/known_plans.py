"""The Plans whose epochs some Worker may hold, and having Workers give back what is over."""

from __future__ import annotations

from cluster.changeover import drain
from cluster.roster import Roster
from swarm.plan import Plan


class KnownPlans:
    """By epoch. What a Worker holds of none of them leaves no room beside a new Plan."""

    def __init__(self, roster: Roster) -> None:
        self.plans: dict[int, Plan] = {}
        self._roster = roster

    def holds(self, plan: Plan) -> None:
        """It is in force. Who holds it is noted already: at each commit, or as a Worker that joined again said it."""
        self.plans[plan.epoch] = plan

    def failed(self, plan: Plan) -> None:
        """Its Workers may hold it from now on, those too that joined again or did not finish."""
        self.plans[plan.epoch] = plan
        names = {w.name for w in plan.workers}
        for device in self._roster.devices():
            if device.name in names and not device.silent:
                device.epochs.add(plan.epoch)

    async def drain(self, keep: int, newcomers: bool = True) -> None:
        """Have the Workers give back all epochs but one.

        Args:
            newcomers: those too that do not hold that one: they came back from silence, or from another Coordinator.
        """
        devices = [d for d in self._roster.devices() if newcomers or keep in d.epochs]
        await drain(devices, keep)
        held = {keep}.union(*(d.epochs for d in self._roster.devices()))
        self.plans = {epoch: plan for epoch, plan in self.plans.items() if epoch in held}
