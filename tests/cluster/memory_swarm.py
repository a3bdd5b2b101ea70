"""A Coordinator whose Workers are in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fake_worker import MODELS, FakeAgents

from cluster.coordinator import Coordinator
from cluster.measurements import Measurements
from cluster.planner import Load, needed_bytes
from cluster.roster import DeviceOffer, RigOffer, Versions
from cluster.target import Published, Target
from swarm.plan import Plan

TARGET = Target("nano", "fp32", sessions=1, context=64)
NEED = needed_bytes(MODELS["nano"], Load(1, 64))
DEADLINE_S = 60.0


def offer(rig: str, *sizes: int, spread: bool = False) -> RigOffer:
    devices = tuple(DeviceOffer("cpu", size, f"{rig}:{7700 + n}", 1) for n, size in enumerate(sizes))
    return RigOffer(rig, rig, devices, Versions("0.1.0", "3.11", "2.60.0", "2.13.0"), spread=spread)


class Swarm:
    """A Coordinator and its Workers."""

    def __init__(self, target: Target = TARGET) -> None:
        self.agents = FakeAgents()
        self.now = 1000.0
        self.remembered: list[Target] = []
        self.coordinator = Coordinator(target, self.agents, "a", lambda: self.now, self.remembered.append)

    async def again(self, target: Target, restarted: bool, book: Measurements | None = None) -> None:
        """Another Coordinator for the same Workers."""
        await self.coordinator.stop()
        self.coordinator = Coordinator(target, self.agents, "a", lambda: self.now, self.remembered.append, restarted, book)
        await self.coordinator.start()

    @property
    def plan(self) -> Plan:
        plan = self.coordinator.published.plan
        assert plan, self.coordinator.published.waiting
        return plan

    def stages(self) -> dict[str, tuple[int, int]]:
        return {s.worker: (s.first, s.end) for s in self.plan.routes[0].stages}

    def used(self) -> set[str]:
        """The Workers that hold a part of the Plan."""
        return {w.name for w in self.plan.workers}

    async def until(self, wanted: Callable[[Published], bool]) -> Published:
        async def look() -> Published:
            async for published in self.coordinator.watch():
                if wanted(published):
                    return published
            raise AssertionError

        return await asyncio.wait_for(look(), DEADLINE_S)

    async def seen(self, there: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not there():
                await asyncio.sleep(0.01)
