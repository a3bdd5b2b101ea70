"""Keeps every Device's Agent named by what its Worker holds: the dashboard's actor page is the layer map."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.agents import Agent, Agents
from cluster.bell import Bell
from cluster.roster import Device, Roster
from swarm.errors import SwarmError

AGAIN_S = 1.0


class Naming:
    """Appoints Agents anew at each change. Orders never wait for it: until it is done, the Agents that there are pass them.

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

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            rung = self._bell.next
            wrong = [d for d in self._roster.devices() if d.holding != self._holding(d)]
            named = await asyncio.gather(*(self._name(device) for device in wrong))
            if all(named):
                await rung.wait()
            else:
                await asyncio.sleep(AGAIN_S)  # its Rig's Ray node is not there yet, or not there any more

    async def _name(self, device: Device) -> bool:
        wanted = self._holding(device)
        try:
            agent: Agent | None = await self._agents.appoint(device, wanted)
        except SwarmError:
            return False
        async with self._ordering:
            if any(d is device for d in self._roster.devices()):
                agent, device.agent, device.holding = device.agent, agent, wanted
        if agent:
            await agent.close()
        return True
