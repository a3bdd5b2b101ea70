"""A Rig whose connection broke joins again, whatever the Coordinator is about to do with its Workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fake_worker import FakeWorker, serve
from memory_swarm import NEED, TARGET, offer

from cluster.agents import PrepareOrder, WorkerAgent, WorkerAgents
from cluster.coordinator import Coordinator
from cluster.roster import DeviceOffer
from cluster.weights_orders import FetchOrder
from swarm.errors import NoSwarm
from swarm.wire.credentials import Credentials

DEADLINE_S = 60.0


async def test_a_rig_that_joins_again_while_its_worker_loads_is_in_the_plan() -> None:
    """Its Agent is given up in the middle of an order, which must end neither the change nor planning itself."""
    worker, credentials = FakeWorker("a/cpu"), Credentials("k")
    server, address = await serve(worker, credentials)
    rig = replace(offer("a", 2 * NEED), devices=(DeviceOffer("cpu", 2 * NEED, address, 1),))
    coordinator = Coordinator(TARGET, WorkerAgents(credentials), "a", lambda: 1000.0)
    await coordinator.start()
    worker.hold_prepare.clear()
    first = asyncio.create_task(coordinator.join(rig))
    failed = asyncio.create_task(coordinator.failed())
    async with asyncio.timeout(DEADLINE_S):
        while not any("prepare" in order for order in worker.orders):
            await asyncio.sleep(0.01)
        second = asyncio.create_task(coordinator.join(rig))
        while sum("called off" in order for order in worker.orders) < 1 and not failed.done():
            await asyncio.sleep(0.01)
        worker.hold_prepare.set()
        assert (await second).plan
        await first
        assert not failed.done()
    failed.cancel()
    await coordinator.stop()
    await server.stop(None)


async def test_orders_of_an_agent_that_was_given_up_say_so() -> None:
    agent = WorkerAgent(Credentials("k"), "127.0.0.1:9", "a/cpu")
    await agent.close()
    for order in (agent.prepare(PrepareOrder("", "a/cpu", False)), agent.fetch(FetchOrder("", ("x",)))):
        with pytest.raises(NoSwarm, match="another agent"):
            async for _ in order:
                pass
