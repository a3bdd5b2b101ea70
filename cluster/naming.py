"""Keeps every Device's Agent named by what its Worker holds: the dashboard's actor page is the layer map."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.agents import Agent, Agents
from cluster.bell import Bell
from cluster.first_failure import FirstFailure
from cluster.roster import Device, Roster
from swarm.errors import SwarmError

AGAIN_S = 1.0
AGAIN_MOST_S = 30.0
"""The pause before an Agent that could not be appointed is tried again doubles up to this."""


class Naming:
    """Appoints Agents anew at each change, each Device's by itself: one whose Ray node is gone holds up no other.

    Orders never wait for it: until it is done, the Agents that there are pass them.

    Args:
        holding: what a Device's Worker holds, for people.
        bell: rings when that may have changed.
        ordering: held by others while orders are under way.
    """

    def __init__(
        self, roster: Roster, agents: Agents, holding: Callable[[Device], str], bell: Bell, ordering: asyncio.Lock
    ) -> None:
        self._roster, self._agents, self._holding = roster, agents, holding
        self._bell, self._ordering = bell, ordering
        self._under_way: list[Device] = []

    async def run(self) -> None:
        """Go on until cancelled."""
        async with FirstFailure() as tasks:
            while True:
                rung = self._bell.next
                for device in self._roster.devices():
                    if self._is_wrong(device) and not any(d is device for d in self._under_way):
                        self._under_way.append(device)
                        tasks.create_task(self._until_right(device))
                await rung.wait()

    def _is_wrong(self, device: Device) -> bool:
        return self._is_here(device) and device.holding != self._holding(device)

    def _is_here(self, device: Device) -> bool:
        return any(d is device for d in self._roster.devices())

    async def _until_right(self, device: Device) -> None:
        """Try until the Agent is named by what its Worker holds, or the Device is no longer here."""
        pause = AGAIN_S
        while self._is_wrong(device):
            if not await self._name(device):
                await asyncio.sleep(pause)
                pause = min(2 * pause, AGAIN_MOST_S)
        self._under_way = [d for d in self._under_way if d is not device]

    async def _name(self, device: Device) -> bool:
        wanted = self._holding(device)
        try:
            agent: Agent | None = await self._agents.appoint(device, wanted)
        except SwarmError:
            return False
        async with self._ordering:
            if self._is_here(device):
                agent, device.agent, device.holding = device.agent, agent, wanted
        if agent:
            await agent.close()
        return True
