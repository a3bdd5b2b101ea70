"""This machine's side of a swarm: it owns its Worker processes and its Ray node, and takes them with it when it ends.

async with HeadRig(settings, target) as rig:      # or JoinedRig(settings, "10.0.0.2:7700")
    print(rig.join_line)
    await rig.run()                               # until cancelled
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.address import bind_host
from cluster.first_failure import FirstFailure
from cluster.hardware import Device
from cluster.identity import Identity
from cluster.membership import Membership
from cluster.ports import DEFAULT_PORTS, Ports
from cluster.raw_logs import keep_small
from cluster.ray_node import RayNode, RayNodeSettings, addresses_of, has_dashboard
from cluster.spare import Spare
from cluster.versions import own_versions
from cluster.worker_process import WorkerOrder, WorkerProcess
from swarm import __version__
from swarm.errors import SwarmError
from swarm.logs.file import LogFile
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb

_LOG = logging.getLogger(__name__)
RAY_AGAIN_S = 2.0
RAY_AGAIN_MOST_S = 60.0
"""The pause before Ray is started again doubles up to this."""
SETTLE_S = 180.0
"""How long the key before is worth something where nobody says that all have the new one."""


@dataclass(frozen=True)
class RigSettings:
    """What this machine gives, and where.

    Args:
        host: the address that others dial (see `cluster.address.own_address`).
        ports: one range for everything.
        key: the swarm's key.
        state_dir: keeps this Rig's id and its Workers' logs.
        environment: for the processes started here.
        cache: the folder of quantized weights; None: nothing is cached.
        spread: use every Device, also where fewer would do.
        ram_bytes: host RAM that is free beside what the Devices give.
        notify: takes what people should know while the Rig runs.
        worker_command: the Worker program.
        text: a Decoder for others is served at its port, see `Ports`.
        spare: keep one warm empty Worker process, for whichever Worker ends.
    """

    name: str
    devices: tuple[Device, ...]
    host: str
    key: str
    state_dir: Path
    environment: Mapping[str, str]
    ports: str = DEFAULT_PORTS
    spread: bool = False
    ram_bytes: int = 0
    cache: Path | None = None
    notify: Callable[[str], None] = field(default=lambda message: None)
    worker_command: tuple[str, ...] = (sys.executable, "-m", "swarm.worker")
    spare: bool = False
    text: bool = False


class Rig:
    """What a head and a joined Rig have in common. An async context: leaving it ends everything that it started.

    `rekeyed` is called with the key before and the one that is the swarm's from now on.
    """

    membership: Membership
    process = ""
    """What its process is, for its log."""

    def __init__(self, settings: RigSettings) -> None:
        self.settings = replace(settings, notify=self._say)
        self._tell = settings.notify
        self.ports = Ports.lay_out(settings.ports, len(settings.devices))
        self.bind = bind_host(settings.host)
        self.credentials = Credentials(settings.key, settings.name)
        self.credentials.check_member()
        self.workers: list[WorkerProcess] = []
        self.ray: RayNode | None = None
        self._spare: Spare | None = None
        self.name = settings.name
        self.rekeyed: Callable[[str, str], None] = lambda before, key: None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.ports.check_free(self.bind)
        self._identity = Identity(self.settings.state_dir)
        self._stack.callback(self._identity.close)
        self.log = self._stack.enter_context(LogFile(self._identity.folder / "logs", self.name, self.process))
        _LOG.info("swarm %s begins at %s, process %d", __version__, self.settings.host, os.getpid())
        self._stack.push_async_callback(self._stop_ray)
        try:
            await self._enter()
        except BaseException as error:
            _log_end(error)
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _log_end(error)
        await self._stack.aclose()

    async def _enter(self) -> None:
        raise NotImplementedError

    @property
    def rig_id(self) -> str:
        """This Rig's own id, the same across restarts and addresses."""
        return self._identity.rig_id

    async def serve(self) -> pb.JoinReply:
        """Bring the Devices in; answers when they are in a Plan, or known to wait for more Rigs.

        Raises:
            ModelError: on the head, where it cannot use the model that the swarm shall hold.
        """
        return await self.membership.join(self._join_request())

    async def run(self, served: Callable[[pb.JoinReply], None] = lambda reply: None) -> None:
        """Serve, watch the Workers and follow the swarm; until cancelled. Raises what `serve` raises.

        Args:
            served: called once the Devices are in.
        """
        async with FirstFailure() as tasks:
            tasks.create_task(self.membership.stay())
            tasks.create_task(self.membership.watch_devices())
            tasks.create_task(self._watch_ray())
            tasks.create_task(keep_small(self._identity.folder))
            for worker in self.workers:
                tasks.create_task(worker.watch())
            served(await self.serve())
            if self._spare:
                tasks.create_task(self._spare.run())

    async def _start_workers(self) -> None:
        """Start all Workers at once. Raises DeviceError."""
        self._stack.push_async_callback(self._stop_workers)
        s = self.settings
        if s.spare:
            self._spare = Spare(s.worker_command, s.key, s.environment, self._identity.folder / "worker-spare.log")
        for device, port in zip(s.devices, self.ports.workers, strict=True):
            order = WorkerOrder(
                command=s.worker_command,
                name=f"{self.name}/{device.name}",
                device=device.torch_device,
                threads=device.threads,
                memory_bytes=device.memory_bytes,
                listen=f"{self.bind}:{port}",
                address=f"{s.host}:{port}",
                key=s.key,
                log=self._identity.folder / f"worker-{device.name.replace(':', '-')}.log",
                environment=s.environment,
                cache=s.cache,
                logs=self._identity.folder / "logs",
            )
            self.workers.append(WorkerProcess(order, self._restarted, s.notify, self._spare, self._take_key))
        async with FirstFailure() as tasks:
            for worker in self.workers:
                tasks.create_task(worker.start())

    def _say(self, message: str) -> None:
        """To the person in front of this rig, and into its log."""
        _LOG.info("%s", message)
        self._tell(message)

    def _take_key(self, key: str) -> None:
        """From now on this is the swarm's; empty: the one before is worth nothing any more."""
        if not key:
            self._settle(self.settings.key)
        elif (before := self.settings.key) != key:
            self.settings = replace(self.settings, key=key)
            self.credentials.use(key)
            for worker in self.workers:
                worker.order = replace(worker.order, key=key)
            if self._spare:
                self._spare.rekey(key)
            asyncio.get_running_loop().call_later(SETTLE_S, self._settle, key)
            self.membership.redial()
            self.settings.notify("the swarm has another key now: chats go on, and this rig uses it from now on")
            try:
                self.rekeyed(before, key)
            except (SwarmError, OSError) as error:
                self.settings.notify(f"this rig could not keep the new key ({error}): give it with --key when it is started again")

    def _settle(self, key: str) -> None:
        """The key before this one is worth nothing any more."""
        if key == self.settings.key:
            self.credentials.settle()
            for worker in self.workers:
                worker.settle()

    async def _restarted(self, address: str) -> None:
        await self.membership.restarted(address)

    async def _stop_workers(self) -> None:
        stopping = [worker.stop() for worker in self.workers]
        await asyncio.gather(*stopping, *([self._spare.stop()] if self._spare else []))

    async def _start_ray(self, token: str, head: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="swarm-", dir="/tmp"))  # short: Ray's sockets lie in it
        host, papers = self.settings.host, self.credentials.papers_at(addresses_of(self.settings.host))
        settings = RayNodeSettings(host, self.ports, token, folder, self.rig_id, head, has_dashboard(), papers)
        self.ray = RayNode(settings, self.settings.environment)
        await self.ray.start()

    async def _stop_ray(self) -> None:
        if self.ray:
            await self.ray.stop()

    async def _watch_ray(self) -> None:
        """Start Ray again whenever it ends; the Workers and what they serve do not notice."""
        while self.ray:
            await self.ray.ended()
            self.settings.notify("Ray ended on this rig; chats go on, and Ray is started again")
            await self._bring_ray_back()

    async def _bring_ray_back(self) -> None:
        """Try until Ray is there with all that belongs to it; each new reason why not is said."""
        pause, said = RAY_AGAIN_S, ""
        while True:
            await self._stop_ray()  # what came up by half, too: on a head, Ray without its Coordinator
            await asyncio.sleep(pause)
            try:
                return await self._restart_ray()
            except (SwarmError, OSError) as error:  # no room in /tmp or for a process: the Workers serve all the same
                if str(error) != said:
                    self.settings.notify(said := str(error))
            pause = min(2 * pause, RAY_AGAIN_MOST_S)

    async def _restart_ray(self) -> None:
        raise NotImplementedError

    def _join_request(self) -> pb.JoinRequest:
        offers = [
            pb.DeviceOffer(
                device=device.torch_device,
                memory_bytes=device.memory_bytes,
                worker_address=worker.order.address,
                threads=device.threads,
                label=device.label,
            )
            for device, worker in zip(self.settings.devices, self.workers, strict=True)
        ]
        versions = pb.Versions(**asdict(own_versions()))
        return pb.JoinRequest(
            rig_id=self.rig_id,
            rig_name=self.name,
            devices=offers,
            versions=versions,
            spread=self.settings.spread,
            ram_bytes=self.settings.ram_bytes,
            text_address=f"{self.settings.host}:{self.ports.text}" if self.settings.text else "",
        )

    def _open_membership(self, address: str, come_back: Callable[[], Awaitable[None]] | None = None) -> None:
        self.membership = Membership(self.credentials, address, self.settings.notify, come_back, self.rig_id)
        self._stack.push_async_callback(self.membership.close)


def _log_end(error: BaseException | None) -> None:
    """Why a Rig ends: somebody stopped it, an error that is a sentence, or a bug."""
    if error is None or isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        _LOG.info("ends: it was stopped")
    elif isinstance(error, SwarmError):
        _LOG.error("ends: %s", error)
    else:
        _LOG.error("ends", exc_info=error)
