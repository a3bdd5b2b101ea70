"""Giving all weights back, and having them again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fake_worker import FakeWorker
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster.target import Target


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
    await loaded(swarm)
    real, going, go_on = FakeWorker.drain, asyncio.Event(), asyncio.Event()

    async def drain(self: FakeWorker, epoch: int, deadline_s: float) -> None:
        going.set()
        await go_on.wait()
        await real(self, epoch, deadline_s)

    monkeypatch.setattr(FakeWorker, "drain", drain)
    unloading = asyncio.create_task(swarm.coordinator.unload())
    await going.wait()
    swarm.coordinator.wake()
    go_on.set()
    await unloading
    await swarm.until(lambda p: p.plan is not None)


async def test_a_load_brings_another_model_instead(swarm: Swarm) -> None:
    await loaded(swarm)
    await swarm.coordinator.join(offer("c", NEED * 3))
    await swarm.coordinator.unload()
    [_ async for _ in swarm.coordinator.load(Target("other", "fp32", 1, 64))]
    assert swarm.plan.model.name == "other"


@pytest.mark.parametrize("restarted", [True, False])
async def test_a_restarted_coordinator_keeps_it_unloaded_and_a_new_up_does_not(swarm: Swarm, restarted: bool) -> None:
    await loaded(swarm)
    await swarm.coordinator.unload()
    await swarm.again(swarm.remembered[-1] if restarted else TARGET, restarted)
    await swarm.coordinator.join(offer("a", NEED * 2))
    assert (swarm.coordinator.published.plan is None) == restarted
