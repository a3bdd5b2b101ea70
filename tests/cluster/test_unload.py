"""Giving all weights back, and having them again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from fake_worker import FakeWorker
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster.agents import Description
from cluster.target import Target
from swarm.wire.v1 import worker_pb2 as pb


async def loaded(swarm: Swarm) -> int:
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    return swarm.plan.epoch


def held(swarm: Swarm) -> list[int]:
    return [epoch for worker in swarm.agents.workers.values() for epoch in worker.plans]


async def test_what_is_unloaded_is_given_back_everywhere_and_said(swarm: Swarm) -> None:
    await loaded(swarm)
    used = sum(w.planned_bytes - w.workspace_bytes for w in swarm.plan.workers)
    assert await swarm.coordinator.unload() == used
    assert held(swarm) == []
    published = swarm.coordinator.published
    assert published.plan is None and "unloaded nano" in published.waiting
    assert swarm.remembered[-1] == replace(TARGET, unloaded=True)
    assert await swarm.coordinator.unload() == 0


async def test_nothing_that_happens_to_rigs_loads_what_was_unloaded(swarm: Swarm) -> None:
    await loaded(swarm)
    await swarm.coordinator.unload()
    await swarm.coordinator.join(offer("c", NEED * 2))
    await swarm.coordinator.worker_restarted("a", "a:7700")
    async for _ in swarm.coordinator.leave("b"):
        pass
    assert held(swarm) == [] and swarm.coordinator.published.plan is None


async def test_a_question_brings_it_back_once(swarm: Swarm) -> None:
    before = await loaded(swarm)
    await swarm.coordinator.unload()
    swarm.coordinator.wake()
    assert swarm.coordinator.waking
    swarm.coordinator.wake()
    await swarm.until(lambda p: p.plan is not None)
    assert swarm.plan.epoch > before and not swarm.coordinator.waking
    assert swarm.remembered[-1] == TARGET
    now = swarm.plan.epoch
    swarm.coordinator.wake()
    assert swarm.plan.epoch == now


async def test_a_question_that_comes_while_it_is_being_unloaded_brings_it_back(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await loaded(swarm)
    real, going, go_on, status = FakeWorker.drain, asyncio.Event(), asyncio.Event(), FakeWorker.status

    async def drain(self: FakeWorker, epoch: int, deadline_s: float) -> None:
        going.set()
        await go_on.wait()
        await real(self, epoch, deadline_s)

    async def takes_a_while(self: FakeWorker, timeout_s: float) -> pb.WorkerStatus:
        said = await status(self, timeout_s)
        await asyncio.sleep(0.005)
        return said

    monkeypatch.setattr(FakeWorker, "drain", drain)
    monkeypatch.setattr(FakeWorker, "status", takes_a_while)
    unloading = asyncio.create_task(swarm.coordinator.unload())
    await going.wait()
    swarm.coordinator.wake()
    go_on.set()
    await unloading
    await swarm.until(lambda p: p.plan is not None)
    assert swarm.plan.epoch > before and set(held(swarm)) == {swarm.plan.epoch}, "a plan is published that nobody holds"


async def test_a_question_that_comes_while_another_model_is_looked_for_in_vain_brings_it_back(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    await loaded(swarm)
    await swarm.coordinator.unload()
    looked_for, looking, describe = asyncio.Event(), asyncio.Event(), FakeWorker.describe

    async def slow(self: FakeWorker, model: str, dtype: str) -> Description:
        if model == "missing":
            looking.set()
            await looked_for.wait()
        return await describe(self, model, dtype)

    monkeypatch.setattr(FakeWorker, "describe", slow)
    loading = asyncio.create_task(anext(swarm.coordinator.change(lambda _: replace(TARGET, source="missing"))))
    await looking.wait()
    swarm.coordinator.wake()
    looked_for.set()
    await asyncio.wait({loading})
    await swarm.until(lambda p: p.plan is not None and p.plan.model.name == "nano")


@pytest.mark.parametrize("by_itself", [False, True])
async def test_an_unload_behind_the_load_of_another_model_gives_that_one_back(by_itself: bool) -> None:
    swarm = Swarm(replace(TARGET, idle_unload_s=1.0 if by_itself else 0.0))
    await swarm.coordinator.start()
    await swarm.coordinator.join(offer("a", NEED * 4))
    worker = swarm.agents.workers["a:7700"]
    worker.hold_prepare.clear()
    orders = len(worker.orders)

    async def load() -> None:
        [_ async for _ in swarm.coordinator.change(lambda now: replace(now, source="other"))]

    loading = asyncio.create_task(load())
    await swarm.seen(lambda: any("prepare" in order for order in worker.orders[orders:]))
    unloading = asyncio.create_task(asyncio.sleep(3.0) if by_itself else swarm.coordinator.unload())
    await asyncio.wait({unloading}, timeout=3.0 if by_itself else 0.1)
    worker.hold_prepare.set()
    await asyncio.gather(loading, unloading)
    await swarm.until(lambda p: "unloaded other" in p.waiting)
    swarm.coordinator.wake()
    await swarm.until(lambda p: p.plan is not None and p.plan.model.name == "other")
    await swarm.coordinator.stop()


async def test_a_load_that_leaves_the_model_open_takes_the_one_that_was_asked_for_before(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 8))
    worker = swarm.agents.workers["a:7700"]
    worker.hold_prepare.clear()
    orders = len(worker.orders)

    async def change(**wanted: Any) -> None:
        [_ async for _ in swarm.coordinator.change(lambda now: replace(now, **wanted))]

    model = asyncio.create_task(change(source="other"))
    await swarm.seen(lambda: any("prepare" in order for order in worker.orders[orders:]))
    room = asyncio.create_task(change(sessions=2))
    await asyncio.sleep(0.1)
    worker.hold_prepare.set()
    await asyncio.gather(model, room)
    assert swarm.plan.model.name == "other" and swarm.plan.sessions == 2


async def test_a_load_brings_another_model_instead(swarm: Swarm) -> None:
    await loaded(swarm)
    await swarm.coordinator.join(offer("c", NEED * 3))
    await swarm.coordinator.unload()
    [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    assert swarm.plan.model.name == "other"


@pytest.mark.parametrize("restarted", [True, False])
async def test_a_restarted_coordinator_keeps_it_unloaded_and_a_new_up_does_not(swarm: Swarm, restarted: bool) -> None:
    await loaded(swarm)
    await swarm.coordinator.unload()
    await swarm.again(swarm.remembered[-1] if restarted else TARGET, restarted)
    await swarm.coordinator.join(offer("a", NEED * 2))
    assert (swarm.coordinator.published.plan is None) == restarted
