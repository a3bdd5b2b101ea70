"""The Rig that starts a swarm."""

from __future__ import annotations

import asyncio
import secrets
import sys

from cluster.address import check_own
from cluster.coordinator_settings import CoordinatorSettings
from cluster.first_failure import FirstFailure
from cluster.ray_node import has_dashboard
from cluster.rig import Rig, RigSettings
from cluster.target import Target
from swarm.errors import NoSwarm, PortInUse, SwarmError
from swarm.wire.join_line import join_line

COORDINATOR_S = 90.0


class HeadRig(Rig):
    """The Rig that starts a swarm: Ray's head node, the Coordinator, and its own Workers.

    Args:
        target: what the swarm shall hold.
        token: Ray's token.
    """

    process = "up"

    def __init__(self, settings: RigSettings, target: Target, token: str) -> None:
        super().__init__(settings)
        self.target, self.token = target, token
        self._ending_ray: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """host:port of the swarm's door."""
        return f"{self.settings.host}:{self.ports.door}"

    @property
    def own_door(self) -> str:
        """Where it reaches the door itself: an advertised address may be a NAT's, which no one inside can dial."""
        return self.address if self.bind == self.settings.host else f"127.0.0.1:{self.ports.door}"

    @property
    def join_line(self) -> str:
        return join_line(self.address, self.settings.key)

    @property
    def dashboard(self) -> str:
        """Its address on this machine; empty where `ray[default]` is not installed. It asks for `token`."""
        return f"http://127.0.0.1:{self.ports.ray['dashboard']}" if has_dashboard() else ""

    async def _enter(self) -> None:
        await check_own(self.settings.host, self.ports.door)
        async with FirstFailure() as tasks:
            tasks.create_task(self._start_workers())
            tasks.create_task(self._start_swarm(restarted=False))
        self._open_membership(self.own_door)

    def _take_key(self, key: str) -> None:
        """With Ray, which keeps its token and certificates for as long as it runs: it is started again, and has others."""
        changes = key not in ("", self.settings.key)
        if changes:
            self.token = secrets.token_hex(32)
        super()._take_key(key)
        if changes and self.ray:
            self._ending_ray = asyncio.create_task(self.ray.stop())

    async def _restart_ray(self) -> None:
        await self._start_swarm(restarted=True)

    async def _start_swarm(self, restarted: bool) -> None:
        await self._start_ray(self.token, head="")
        assert self.ray
        # Another process connects to Ray: losing the raylet ends its drivers, and must not end this one.
        settings = CoordinatorSettings(
            listen=f"{self.bind}:{self.ports.door}",
            address=self.address,
            key=self.settings.key,
            head=self.rig_id,
            ray_address=self.ray.settings.gcs,
            ray_token=self.token,
            target=self.target,
            memo=str(self._identity.folder / "target.json"),
            restarted=restarted,
            rig=self.name,
            logs=str(self._identity.folder / "logs"),
        )
        starter = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cluster.actor",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=self.ray.environment,
        )  # fmt: skip
        try:
            async with asyncio.timeout(COORDINATOR_S):
                said, complaint = await starter.communicate(settings.to_json().encode())
        except TimeoutError:
            said, complaint = b"", b"it took too long"
        finally:
            if starter.returncode is None:
                starter.kill()
        if b"ready" not in said:
            raise _not_started(complaint.decode(errors="replace"), self.address)


def _not_started(complaint: str, address: str) -> SwarmError:
    last = next((line for line in reversed(complaint.strip().splitlines()) if line.strip()), "it said nothing")
    if "cannot listen on" in last:
        return PortInUse(last[last.index("cannot listen on") :])
    return NoSwarm(f"the coordinator of the swarm at {address} did not start ({last[:300]}): try again")
