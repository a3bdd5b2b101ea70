"""A Rig that joins a swarm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict

from cluster.calling import call
from cluster.dialled_by import check_ways, listening
from cluster.first_failure import FirstFailure
from cluster.membership import AGAIN_S
from cluster.network import read_network
from cluster.place import Place
from cluster.rig import Rig, RigSettings
from cluster.versions import own_versions
from swarm.errors import Expired, NoSwarm, SwarmError
from swarm.wire.v1 import swarm_pb2 as pb


class JoinedRig(Rig):
    """A Rig that contributes its Devices to a swarm at host:port until it leaves.

    `moved` is called with the address of a swarm that came back at another one.
    """

    process = "join"

    def __init__(self, settings: RigSettings, swarm: str) -> None:
        super().__init__(settings)
        self.moved: Callable[[str], None] = lambda address: None
        self.swarm = swarm
        self._knocking = asyncio.Lock()
        self._refused = False
        self._ending_ray: asyncio.Task[None] | None = None

    async def _enter(self) -> None:
        self._open_membership(self.swarm, self._come_back)
        door = await self._knock()
        self.name = self.log.rig = door.rig_name
        async with FirstFailure() as tasks:
            tasks.create_task(self._start_workers())
            if door.ray_address:
                tasks.create_task(self._start_ray(door.ray_token, door.ray_address))

    async def _restart_ray(self) -> None:
        """As the door says now: a head that was started again has another token. Waits for a swarm that is away."""
        while True:
            try:
                door = await self._knock()
                break
            except (NoSwarm, Expired):
                await asyncio.sleep(AGAIN_S)
        await self._start_ray(door.ray_token, door.ray_address)

    async def _come_back(self) -> None:
        """Knock again, and end a Ray node that belongs to a head which is gone: whoever watches it starts another.

        That takes a while, and the Workers need no Ray to be planned on: it is not waited for.
        """
        await self._follow_the_head()
        door = await self._knock()
        if self.ray and (self.ray.settings.token, self.ray.settings.head) != (door.ray_token, door.ray_address):
            self._ending_ray = asyncio.create_task(self.ray.stop())

    async def _follow_the_head(self) -> None:
        """Go on at the address that a head which came back elsewhere told this Rig's Workers."""
        for worker in self.workers:
            address = await call(self.credentials, worker.order.address)
            if address and address != self.swarm:
                self.swarm = address
                self.membership.move(address)
                self.settings.notify(f"the swarm is at {address} now")
                self.moved(address)
                return

    async def serve(self) -> pb.JoinReply:
        # Before it is in: a Ctrl-C while its Devices are counted in finds the swarm already planning on them.
        self._stack.push_async_callback(self._leave)
        try:
            return await super().serve()
        except SwarmError:
            self._refused = True
            raise

    async def _knock(self) -> pb.KnockReply:
        # Later it is in, and not kept out because a Worker of it starts again or a link is down for a while.
        ports = () if self.workers else (self.ports.door, self.ports.text, *self.ports.workers)
        network = await asyncio.to_thread(read_network)
        place = Place(self.settings.host, ports, self.settings.ports, network.kind, network.addresses)
        request = pb.KnockRequest(
            rig_id=self.rig_id, rig_name=self.name, versions=pb.Versions(**asdict(own_versions())), place=place.to_wire()
        )
        async with self._knocking, listening(self.bind, ports):
            door = await self.membership.knock(request)
        await check_ways(self.name, self.settings.host, door.neighbours)
        return door

    async def _leave(self) -> None:
        """Go politely; a swarm that did not let us in, or is gone already, needs no goodbye."""
        if self._refused:
            return
        try:
            await self.membership.leave()
        except SwarmError as error:
            self.settings.notify(str(error))
