"""Who stands at the door is dialled back, by every Rig that it will have to talk to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.agents import Agent, DialOrder
from cluster.coordinator import Coordinator
from cluster.dial_back import DIAL_S, Dialled, Dialler, better_host, dial_back
from cluster.place import Place
from cluster.unreached import why_unreached
from swarm.errors import Unreachable
from swarm.wire.dial import dial
from swarm.wire.v1 import swarm_pb2 as pb


@dataclass(frozen=True)
class Found:
    """What the Rigs found.

    Args:
        neighbours: the Rigs that answered, by one of their Workers: whom the newcomer must be able to dial, too.
    """

    dialled: tuple[Dialled, ...]
    neighbours: tuple[pb.Neighbour, ...]


class Doorstep:
    """Has a newcomer dialled from the head Rig, where the door is, and from each other Rig through one of its Workers.

    Args:
        address: host:port of the swarm.
    """

    def __init__(self, coordinator: Coordinator, address: str) -> None:
        self._coordinator, self._host = coordinator, address.rpartition(":")[0]

    async def look(self, rig_id: str, place: Place) -> Found:
        """Dial a Place from everywhere."""
        dialled = await dial_back(place, self._diallers(rig_id))
        answered = {d.rig for d in dialled}
        voices = [d for d in self._coordinator.voices(rig_id) if d.rig in answered]
        return Found(tuple(dialled), tuple(pb.Neighbour(rig_name=d.rig, worker_address=d.address) for d in voices))

    async def admit(self, rig_id: str, name: str, place: Place, seen_as: str) -> Found:
        """The same, for a Rig that knocks. Raises Unreachable, with what to do, unless all reach it."""
        found = await self.look(rig_id, place)
        if any(d.why for d in found.dialled):
            better = await better_host(place, self._diallers(rig_id))
            raise Unreachable(why_unreached(name, place, seen_as, found.dialled, better))
        return found

    def _diallers(self, rig_id: str) -> list[Dialler]:
        voices, head = self._coordinator.voices(rig_id), self._coordinator.head
        name = next((d.rig for d in voices if d.rig_id == head), "the swarm")
        others = [(d, d.agent) for d in voices if d.rig_id != head and d.agent]
        through = [Dialler(d.rig, d.address.rpartition(":")[0], _Through(agent)) for d, agent in others]
        return [Dialler(name, self._host, _from_here), *through]


async def _from_here(host: str, ports: Sequence[int]) -> list[str]:
    return await dial(host, ports, DIAL_S)


@dataclass(frozen=True)
class _Through:
    """Has the Worker of another Rig dial."""

    agent: Agent

    async def __call__(self, host: str, ports: Sequence[int]) -> list[str]:
        return await self.agent.dial(DialOrder(host, tuple(ports), DIAL_S))
