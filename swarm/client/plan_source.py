"""Where a client learns the Plan: from a file, or from the swarm, which tells it of every later one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc.aio

from swarm.errors import Expired, NoSwarm, PlacementError, SwarmError, WrongKey
from swarm.plan import Model, Plan
from swarm.weights.describe import assets as assets_of_folder
from swarm.weights.source import small_files
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

CALL_S = 10.0
RECONNECT_S = 1.0


@dataclass(frozen=True)
class Known:
    """A Plan, and the small files of its model by name."""

    plan: Plan
    assets: dict[str, bytes]


class PlanSource(Protocol):
    """The Plan in force, and the small files that go with its model."""

    patience_s: float
    """How long it makes sense to wait for a Plan that works again."""

    @property
    def waiting(self) -> str:
        """What a swarm without a Plan waits for, behind the words "the swarm"; empty: nothing is known of that."""
        ...

    async def plan(self) -> Plan:
        """The Plan in force. Raises SwarmError, saying why there is none."""
        ...

    async def newer_than(self, epoch: int) -> Plan:
        """The first Plan of a later epoch; waits for it."""
        ...

    async def assets(self, model: Model) -> dict[str, bytes]:
        """Tokenizer, template and configs of a model, by file name."""
        ...

    async def report(self, epoch: int, worker: str, message: str) -> None:
        """Tell that a Worker failed. Best effort."""
        ...

    async def close(self) -> None: ...


class FilePlan:
    """A Plan in a file, for Workers that were started from it. It never changes."""

    patience_s = 15.0
    waiting = ""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def plan(self) -> Plan:
        """Read and check the file. Raises PlacementError."""
        try:
            return Plan.from_json(self._path.read_text(encoding="utf-8"), str(self._path))
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise PlacementError(f"{self._path} cannot be read ({why}): write it with `swarm plan --out`") from None

    async def newer_than(self, epoch: int) -> Plan:
        """Never: a file stays as it is."""
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def assets(self, model: Model) -> dict[str, bytes]:
        """From the model's folder on this machine. Raises ModelError."""
        return await asyncio.to_thread(lambda: assets_of_folder(small_files(model.source)))

    async def report(self, epoch: int, worker: str, message: str) -> None:
        return None

    async def close(self) -> None:
        return None


class SwarmPlan:
    """The Plan that a Coordinator serves. Keeps the last one it heard of while the Coordinator is away.

    Args:
        notify: told why the Plan takes a while: what was unloaded is brought back.
        known: what to begin with where the Coordinator is away from the start; its Workers may serve on.
    """

    patience_s = 3600.0

    def __init__(
        self,
        address: str,
        credentials: Credentials,
        notify: Callable[[str], None] = lambda message: None,
        known: Callable[[], Known | None] = lambda: None,
    ) -> None:
        self._notify, self._known = notify, known
        self._unloaded = self._coming = False
        self._address, self._what = address, f"the swarm at {address}"
        self._credentials = credentials
        self._channels: list[grpc.aio.Channel] = []
        """One for each key that it had: closing one would cancel whoever waits for an answer on it."""
        self._dial()
        self._latest: Plan | None = None
        self._waiting = ""
        self._changed = asyncio.Condition()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> str:
        """See `PlanSource.waiting`."""
        return self._waiting

    async def plan(self) -> Plan:
        """See `PlanSource.plan`. Raises NoSwarm, WrongKey, or PlacementError with what the swarm waits for."""
        if self._latest is None:
            await self._ask_or_recall()
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        if self._latest is None and self._coming:
            self._notify(f"{self._what} {self._waiting}")
            async with self._changed:
                await self._changed.wait_for(lambda: self._latest is not None or not self._coming)
        if self._latest is None:
            raise PlacementError(f"{self._what} has no model loaded: it {self._waiting or 'is starting'}")
        return self._latest

    async def newer_than(self, epoch: int) -> Plan:
        """See `PlanSource.newer_than`. Who waits has a question, which brings back what was unloaded."""
        if self._unloaded:
            with suppress(SwarmError):  # the Coordinator is away: the watch goes on
                await self._ask()
        async with self._changed:
            await self._changed.wait_for(lambda: self._latest is not None and self._latest.epoch > epoch)
            assert self._latest is not None
            return self._latest

    async def assets(self, model: Model) -> dict[str, bytes]:
        """See `PlanSource.assets`."""
        if (known := self._known()) and known.plan.model.model_id == model.model_id:
            return known.assets
        try:
            reply = await self._stub.GetAssets(pb.AssetsRequest(model_id=model.model_id), timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._what) from None
        return {asset.name: asset.data for asset in reply.assets}

    async def report(self, epoch: int, worker: str, message: str) -> None:
        try:
            await self._stub.ReportFailure(pb.FailureReport(epoch=epoch, worker=worker, message=message), timeout=CALL_S)
        except grpc.aio.AioRpcError:
            return  # the Coordinator is away: its own polling will find out

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for channel in self._channels:
            await channel.close(None)

    def _dial(self) -> None:
        self._key = self._credentials.key
        self._channels.append(self._credentials.channel(self._address))
        self._stub = SwarmServiceStub(self._channels[-1])

    async def _watch(self) -> None:
        while True:
            started = time.monotonic()
            try:
                async for reply in self._stub.WatchPlan(pb.PlanRequest()):
                    await self._heard(reply)
            except grpc.aio.AioRpcError as error:
                meant = from_rpc(error, self._what)
                self._waiting = str(meant)
                if isinstance(meant, WrongKey):
                    self._renew()
            except SwarmError as error:  # a plan that this version cannot read: the last one may still serve
                self._waiting = str(error)
            await asyncio.sleep(max(0.0, RECONNECT_S - (time.monotonic() - started)))
            if self._key != self._credentials.key:
                self._dial()

    def _renew(self) -> None:
        try:
            self._credentials.renew()
        except (SwarmError, OSError) as error:  # what is kept now is no key, or cannot be read
            self._waiting = str(error)

    async def _ask_or_recall(self) -> None:
        """Raises SwarmError where the swarm does not answer and nothing is known of it."""
        try:
            await self._ask()
        except (NoSwarm, Expired):
            if (known := self._known()) is None:
                raise
            self._latest = known.plan

    async def _ask(self) -> None:
        """Have a question. Raises SwarmError where the swarm does not answer."""
        try:
            reply = await self._stub.GetPlan(pb.PlanRequest(asks=True), timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._what) from None
        await self._heard(reply)

    async def _heard(self, reply: pb.PlanReply) -> None:
        async with self._changed:
            self._unloaded, self._coming = reply.unloaded, reply.coming
            self._waiting = reply.waiting
            if reply.plan:
                self._latest = Plan.from_json(reply.plan, "the swarm's plan")
            self._changed.notify_all()
