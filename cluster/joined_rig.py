"""A Rig that joins a swarm."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from cluster.first_failure import FirstFailure
from cluster.rig import Rig, RigSettings
from cluster.versions import own_versions
from swarm.errors import PortInUse, SwarmError
from swarm.wire.v1 import swarm_pb2 as pb


class JoinedRig(Rig):
    """A Rig that contributes its Devices to a swarm at host:port until it leaves."""

    def __init__(self, settings: RigSettings, swarm: str) -> None:
        super().__init__(settings)
        self.swarm = swarm

    async def _enter(self) -> None:
        self._open_membership(self.swarm)
        self._door = await self._knock()
        async with FirstFailure() as tasks:
            tasks.create_task(self._start_workers())
            if self._door.ray_address:
                tasks.create_task(self._restart_ray())

    async def _restart_ray(self) -> None:
        await self._start_ray(self._door.ray_token, self._door.ray_address)

    async def serve(self) -> pb.JoinReply:
        reply = await super().serve()
        self._stack.push_async_callback(self._leave)
        return reply

    async def _knock(self) -> pb.KnockReply:
        s = self.settings
        try:
            probe = await asyncio.start_server(lambda _, writer: writer.close(), self.bind, self.ports.door)
        except OSError as error:
            raise PortInUse(
                f"cannot listen on {self.bind}:{self.ports.door} ({error.strerror}): choose another range with --ports"
            ) from None
        async with probe:
            reply = await self.membership.knock(
                pb.KnockRequest(
                    rig_id=self.rig_id,
                    rig_name=s.name,
                    versions=pb.Versions(**asdict(own_versions())),
                    address=s.host,
                    probe_port=self.ports.door,
                )
            )
        self.name = reply.rig_name
        return reply

    async def _leave(self) -> None:
        """Go politely; a swarm that is gone already needs no goodbye."""
        try:
            await self.membership.leave()
        except SwarmError as error:
            self.settings.notify(str(error))
