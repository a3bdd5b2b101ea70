"""Which Rigs are without their Ray node: their Workers serve on; their Agents are appointed again once it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cluster.agents import Agents
from cluster.bell import Bell
from cluster.roster import Roster

LOOK_S = 2.0


class RayPresence:
    """Looks every `LOOK_S`; a Rig's `ray_node` says what it found.

    Args:
        bell: rings where Agents are to be appointed again.
    """

    def __init__(self, roster: Roster, agents: Agents, bell: Bell) -> None:
        self._roster, self._agents, self._bell = roster, agents, bell
        self._lost: set[str] = set()  # ids of Rigs that had a node, and have none

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if (nodes := await self._agents.nodes()) is not None:
                self._compare(nodes)

    def notes(self) -> list[str]:
        """For people: which Rigs have no Ray node now, what that means, and what to do."""
        return [
            f"{rig.name} has no Ray node now: its workers serve on and chats go on, only the dashboard does not show it; "
            "its `swarm up` or `swarm join` starts Ray again and says there why where it cannot"
            for rig_id, rig in self._roster.rigs.items()
            if rig_id in self._lost
        ]

    def _compare(self, nodes: Mapping[str, str]) -> None:
        self._lost = {i for i, rig in self._roster.rigs.items() if rig.ray_node and i not in nodes}
        for rig_id, rig in self._roster.rigs.items():
            node = nodes.get(rig_id, rig.ray_node)
            if rig.ray_node and node != rig.ray_node:
                for device in rig.devices:
                    device.holding = ""  # its Agent ended with the old node
                self._bell.ring()
            rig.ray_node = node
