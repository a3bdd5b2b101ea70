"""A Rig whose connection broke joins again, whatever the Coordinator is about to do with its Workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fake_worker import GIB, FakeWorker, serve
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster.agents import PrepareOrder, WorkerAgent, WorkerAgents
from cluster.coordinator import Coordinator
from cluster.hardware.detect import GPU_MARGIN_BYTES
from cluster.membership import Membership
from cluster.roster import DeviceOffer, RigOffer
from cluster.weights_orders import FetchOrder
from swarm.errors import NoSwarm
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as rigs
from swarm.wire.v1 import worker_pb2 as pb

DEADLINE_S = 60.0


@asynccontextmanager
async def one_rig(size: int) -> AsyncIterator[tuple[Coordinator, FakeWorker, RigOffer]]:
    """A Coordinator, and a Rig whose Worker it speaks to over gRPC: an Agent that is given up ends what is under way on it."""
    worker, credentials = FakeWorker("a/cpu"), Credentials("k")
    server, address = await serve(worker, credentials)
    coordinator = Coordinator(TARGET, WorkerAgents(credentials), "a", lambda: 1000.0)
    await coordinator.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield coordinator, worker, replace(offer("a"), devices=(DeviceOffer("cpu", size, address, 1),))
    finally:
        worker.hold_prepare.set()
        await coordinator.stop()
        await server.stop(None)


def prepared(worker: FakeWorker) -> int:
    return sum("prepare" in order for order in worker.orders)


async def test_a_rig_that_joins_again_while_its_worker_loads_is_in_the_plan() -> None:
    """Its Agent is given up in the middle of an order, which must end neither the change nor planning itself."""
    async with one_rig(2 * NEED) as (coordinator, worker, rig):
        worker.hold_prepare.clear()
        first = asyncio.create_task(coordinator.join(rig))
        failed = asyncio.create_task(coordinator.failed())
        while not prepared(worker):
            await asyncio.sleep(0.01)
        second = asyncio.create_task(coordinator.join(rig))
        while sum("called off" in order for order in worker.orders) < 1 and not failed.done():
            await asyncio.sleep(0.01)
        worker.hold_prepare.set()
        assert (await second).plan
        await first
        assert not failed.done()
        failed.cancel()


async def test_a_rig_that_joins_again_while_another_model_loads_keeps_what_is_in_force() -> None:
    async with one_rig(8 * NEED) as (coordinator, worker, rig):

        async def load() -> None:
            [_ async for _ in coordinator.change(lambda _: replace(TARGET, source="other"))]

        assert (await coordinator.join(rig)).plan and prepared(worker) == 1
        worker.hold_prepare.clear()
        loading = asyncio.create_task(load())
        while prepared(worker) < 2:
            await asyncio.sleep(0.01)
        joining = asyncio.create_task(coordinator.join(rig))
        while not any("called off" in order for order in worker.orders):
            await asyncio.sleep(0.01)
        worker.hold_prepare.set()
        await asyncio.gather(loading, joining)
        assert coordinator.published.plan and coordinator.published.plan.model.name == "other"
        assert prepared(worker) == 3, "what was in force all the time was prepared again"


def card(rig: str, size: int) -> RigOffer:
    return replace(offer(rig), devices=(DeviceOffer("cuda:0", size, f"{rig}:7700", 1),))


async def test_a_rig_that_joins_again_moves_nothing_while_its_worker_has_yet_to_answer(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rig in "ab":
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4))
    before, late = swarm.plan.epoch, asyncio.Event()
    worker = swarm.agents.workers["b:7700"]
    status = worker.status

    async def slow(timeout_s: float) -> pb.WorkerStatus:
        await late.wait()
        return await status(timeout_s)

    monkeypatch.setattr(worker, "status", slow)
    joining = asyncio.create_task(swarm.coordinator.join(offer("b", NEED * 3 // 4)))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(swarm.coordinator.join(offer("c", NEED // 100)), DEADLINE_S)  # whoever else makes the Coordinator look
    late.set()
    await joining
    assert swarm.plan.epoch == before


async def test_what_was_measured_of_a_device_holds_when_its_rig_joins_again(swarm: Swarm) -> None:
    worker = swarm.agents.workers["a:7700"] = FakeWorker("a/cuda:0", swarm.agents.orders)
    worker.free_bytes = 6 * GIB
    for _ in range(2):
        await swarm.coordinator.join(card("a", 8 * GIB))
        (device,) = swarm.coordinator._roster.devices()
        device.pace = device.pace if device.pace.slowed != 1.0 else device.pace.measured(4.0)
    assert device.spec.memory_bytes == 6 * GIB - GPU_MARGIN_BYTES and device.pace.slowed == 4.0 and swarm.plan.epoch


async def test_a_rig_whose_join_is_cut_off_is_planned_on_all_the_same(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, late = FakeWorker("a/cpu", swarm.agents.orders), asyncio.Event()
    swarm.agents.workers["a:7700"] = worker
    status = worker.status

    async def slow(timeout_s: float) -> pb.WorkerStatus:
        await late.wait()
        return await status(timeout_s)

    monkeypatch.setattr(worker, "status", slow)
    joining = asyncio.create_task(swarm.coordinator.join(offer("a", NEED * 2)))
    await asyncio.sleep(0.05)
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)
    late.set()
    await swarm.until(lambda p: p.plan is not None)


async def test_a_head_at_another_address_ends_none_of_a_rigs_own_tasks() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)  # where it was: somebody accepts there, and says nothing
    membership = Membership(Credentials("k"), f"127.0.0.1:{server.sockets[0].getsockname()[1]}", print, rig_id="r")
    membership._request = rigs.JoinRequest(rig_id="r")
    tasks = [asyncio.create_task(run) for run in (membership.watch_devices(), membership.restarted("a:1"))]
    await asyncio.sleep(0.2)
    membership.move("127.0.0.1:9")
    done, _ = await asyncio.wait(tasks, timeout=0.5)
    assert not done
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await membership.close()
    server.close()


async def test_orders_of_an_agent_that_was_given_up_say_so() -> None:
    agent = WorkerAgent(Credentials("k"), "127.0.0.1:9", "a/cpu")
    await agent.close()
    for order in (agent.prepare(PrepareOrder("", "a/cpu", False)), agent.fetch(FetchOrder("", ("x",)))):
        with pytest.raises(NoSwarm, match="another agent"):
            async for _ in order:
                pass
