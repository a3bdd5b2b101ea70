"""A Coordinator behind its door, without Ray, and Rigs of one real Worker each, on loopback."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from claimed_ports import claimed_port

from cluster.agents import Agent, PrepareOrder, WorkerAgent, WorkerAgents
from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from cluster.fetch_plan import Survey
from cluster.roster import Device, DeviceOffer, RigOffer
from cluster.target import Target
from cluster.versions import own_versions
from cluster.weights_orders import SurveyOrder
from cluster.worker_process import WorkerOrder, WorkerProcess
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2_grpc

CREDENTIALS = Credentials("secret")


class CountingAgent(WorkerAgent):
    """Writes down which Plans came, and what its Worker said that it had to load, and to bring from elsewhere."""

    def __init__(self, device: Device, all_of_them: CountingAgents) -> None:
        super().__init__(CREDENTIALS, device.address, device.name)
        self._plans, self._loads, self._brings = all_of_them.plans, all_of_them.loads, all_of_them.brings

    async def survey(self, order: SurveyOrder) -> Survey:
        survey = await super().survey(order)
        self._brings[Plan.from_json(order.plan).epoch][order.name] = sum(each.wanted_bytes for each in survey.absent.values())
        return survey

    async def prepare(self, order: PrepareOrder) -> AsyncIterator[tuple[int, int]]:
        plan = Plan.from_json(order.plan)
        self._plans[epoch := plan.epoch] = plan
        self._loads[epoch][order.name] = 0
        async for loaded, total in super().prepare(order):
            self._loads[epoch][order.name] = total
            yield loaded, total


class CountingAgents(WorkerAgents):
    """All by epoch; bytes by Worker, too."""

    def __init__(self) -> None:
        super().__init__(CREDENTIALS)
        self.plans: dict[int, Plan] = {}
        self.loads: dict[int, dict[str, int]] = defaultdict(dict)
        self.brings: dict[int, dict[str, int]] = defaultdict(dict)

    def plain(self, device: Device) -> Agent:
        return CountingAgent(device, self)


class RealSwarm:
    """A swarm whose Rigs come and go as a test says; for `plans`, `loads` and `brings` see `CountingAgents`."""

    def __init__(self, coordinator: Coordinator, agents: CountingAgents, address: str, folder: Path, stack: AsyncExitStack) -> None:
        self.coordinator, self.address = coordinator, address
        self.plans, self.loads, self.brings = agents.plans, agents.loads, agents.brings
        self.caches = False
        """Whether Workers keep on disk what they took from others."""
        self.workers: dict[str, WorkerProcess] = {}
        self._folder, self._stack = folder, stack

    @property
    def plan(self) -> Plan:
        plan = self.coordinator.published.plan
        assert plan, self.coordinator.published.waiting
        return plan

    async def join(self, rig: str, memory_bytes: int, **environment: str) -> Plan:
        """Start a Worker and count it in as a Rig of its own."""
        worker = self.workers[rig] = WorkerProcess(self._order(rig, memory_bytes, environment), _never, print)
        self._stack.push_async_callback(worker.stop)
        await worker.start()
        offer = DeviceOffer("cpu", memory_bytes, worker.order.address, 1, "a CPU")
        await self.coordinator.join(RigOffer(rig, rig, (offer,), own_versions(), spread=True))
        return self.plan

    def _order(self, rig: str, memory_bytes: int, environment: dict[str, str]) -> WorkerOrder:
        where = f"127.0.0.1:{claimed_port()}"
        command = (sys.executable, "-m", "swarm.worker")
        log = self._folder / f"{rig}.log"
        seen = dict(os.environ) | environment
        return WorkerOrder(
            command, f"{rig}/cpu", "cpu", 1, memory_bytes, where, where, "secret", log, seen,
            cache=self._folder / rig / "weights" if self.caches else None, logs=self._folder / rig / "logs",
        )  # fmt: skip


async def _never(address: str) -> None:
    raise AssertionError(f"the worker at {address} was started again")


@asynccontextmanager
async def real_swarm(target: Target, folder: Path) -> AsyncIterator[RealSwarm]:
    """A swarm without Rigs, until the block ends."""
    agents = CountingAgents()
    coordinator = Coordinator(target, agents, "a", lambda: 1000.0)
    server = CREDENTIALS.server()
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(coordinator, "here", RayDoor()), server)
    port = CREDENTIALS.bind(server, "127.0.0.1:0")
    await server.start()
    await coordinator.start()
    async with AsyncExitStack() as stack:
        yield RealSwarm(coordinator, agents, f"127.0.0.1:{port}", folder, stack)
        await coordinator.stop()
        await server.stop(None)
