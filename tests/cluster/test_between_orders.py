"""What becomes of a Worker between two orders of one change: it may be started anew, or be gone, at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from fake_worker import FakeWorker, of_the_hub
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster.agents import Description, PrepareOrder
from cluster.fetch_plan import Survey
from cluster.weights_orders import FetchOrder, SurveyOrder
from swarm.errors import Expired, Refused
from swarm.plan import Plan


@pytest.fixture(autouse=True)
def as_a_real_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Worker commits nothing that it has not loaded."""
    real = FakeWorker.commit

    async def commit(self: FakeWorker, epoch: int) -> None:
        if epoch not in self.plans:
            raise Refused(f"epoch {epoch} was not prepared here", self.name)
        await real(self, epoch)

    monkeypatch.setattr(FakeWorker, "commit", commit)


async def test_a_worker_that_is_started_anew_while_others_load_serves_in_the_end(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 3 * NEED // 4, spread=True))
    slow = swarm.agents.workers["b:7700"] = FakeWorker("b/cpu", swarm.agents.orders)
    slow.hold_prepare.clear()
    joining = asyncio.create_task(swarm.coordinator.join(offer("b", 3 * NEED // 4)))
    await swarm.seen(lambda: any("b/cpu: prepare" in order for order in swarm.agents.orders))
    restarted = swarm.agents.workers["a:7700"]
    await swarm.seen(lambda: restarted.plans)
    restarted.start_anew()
    await swarm.coordinator.worker_restarted("a", "a:7700")
    slow.hold_prepare.set()
    await joining
    await swarm.seen(lambda: swarm.coordinator.published.plan)
    assert swarm.used() == {"a/cpu", "b/cpu"}


async def test_a_worker_that_came_back_and_is_first_looked_at_while_it_loads_keeps_what_it_loaded(swarm: Swarm) -> None:
    for rig in "ab":
        await swarm.coordinator.join(offer(rig, 3 * NEED // 4))
    before, orders, back = swarm.plan, len(swarm.agents.orders), swarm.agents.workers["b:7700"]
    back.start_anew()
    back.hold_prepare.clear()
    await swarm.coordinator.worker_restarted("b", "b:7700")
    await swarm.seen(lambda: any("b/cpu: prepare" in order for order in swarm.agents.orders[orders:]))
    swarm.coordinator.report_failure("b/cpu")
    device = next(d for d in swarm.coordinator._roster.devices() if d.name == "b/cpu")
    await swarm.seen(lambda: device.status)
    back.hold_prepare.set()
    await swarm.seen(lambda: swarm.plan.epoch > before.epoch)
    assert swarm.plan.routes == before.routes
    assert sum("b/cpu: prepare" in order for order in swarm.agents.orders[orders:]) == 1


async def test_a_worker_that_is_started_anew_while_others_commit_gets_its_part_again(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, others = FakeWorker.commit, asyncio.Event()

    async def commit(self: FakeWorker, epoch: int) -> None:
        await commits(self, epoch)
        if self.name == "b/cpu":
            await others.wait()

    monkeypatch.setattr(FakeWorker, "commit", commit)
    await swarm.coordinator.join(offer("a", 3 * NEED // 4, spread=True))
    joining = asyncio.create_task(swarm.coordinator.join(offer("b", 3 * NEED // 4)))
    restarted = swarm.agents.workers["a:7700"]
    await swarm.seen(lambda: restarted.epoch)
    restarted.start_anew()
    await swarm.coordinator.worker_restarted("a", "a:7700")
    others.set()
    await joining
    await swarm.seen(lambda: swarm.coordinator.published.plan and restarted.epoch == swarm.plan.epoch)
    assert swarm.used() == {"a/cpu", "b/cpu"}


@pytest.mark.parametrize("what", ["describe", "survey", "fetch", "prepare"])
async def test_a_worker_that_is_started_anew_while_another_model_comes_serves_the_old_one_again_at_once(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    came, coming = asyncio.Event(), asyncio.Event()

    async def until_it_came(model: str) -> None:
        if model == "other" and not came.is_set():
            coming.set()
            await came.wait()

    describe, survey, fetch, prepare = FakeWorker.describe, FakeWorker.survey, FakeWorker.fetch, FakeWorker.prepare

    async def slow_describe(self: FakeWorker, model: str, dtype: str) -> Description:
        await until_it_came(model)
        return await describe(self, model, dtype)

    async def slow_survey(self: FakeWorker, order: SurveyOrder) -> Survey:
        await until_it_came(Plan.from_json(order.plan).model.name)
        return await survey(self, order)

    async def slow_fetch(self: FakeWorker, order: FetchOrder) -> AsyncIterator[tuple[int, int, float]]:
        await until_it_came(Plan.from_json(order.plan).model.name)
        async for progress in fetch(self, order):
            yield progress

    async def slow_prepare(self: FakeWorker, order: PrepareOrder) -> AsyncIterator[tuple[int, int]]:
        if self.name == "a/cpu":
            await until_it_came(Plan.from_json(order.plan).model.name)
        async for progress in prepare(self, order):
            yield progress

    for rig in "ab":
        await swarm.coordinator.join(offer(rig, (4 if what == "prepare" else 1) * NEED, spread=True))
    slow = {"describe": slow_describe, "survey": slow_survey, "fetch": slow_fetch, "prepare": slow_prepare}[what]
    monkeypatch.setattr(FakeWorker, what, slow)
    for worker in swarm.agents.workers.values():
        worker.weights = of_the_hub("1")
    before, lost = swarm.plan, swarm.agents.workers["b:7700"]

    async def load() -> None:
        [_ async for _ in swarm.coordinator.change(lambda _: replace(TARGET, source="other", spread=True))]

    loading = asyncio.create_task(load())
    await coming.wait()
    lost.start_anew()
    await swarm.coordinator.worker_restarted("b", "b:7700")
    await swarm.seen(lambda: swarm.plan.epoch > before.epoch and swarm.plan.epoch in lost.plans)
    assert swarm.plan.routes == before.routes and not loading.done()
    came.set()
    await loading
    assert swarm.plan.model.name == "other" and all(swarm.plan.epoch in w.plans for w in swarm.agents.workers.values())


async def test_a_worker_that_is_lost_while_older_epochs_are_drained_is_planned_around(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    await swarm.coordinator.join(offer("b", 2 * NEED))
    device = next(d for d in swarm.coordinator._roster.devices() if d.name == "a/cpu")
    device.epochs.add(7)  # an earlier drain did not reach it
    real = FakeWorker.drain

    async def drain(self: FakeWorker, epoch: int, deadline_s: float) -> None:
        if epoch == 7:
            swarm.agents.workers["b:7700"].alive = False
            swarm.coordinator.report_failure("b/cpu")
            await swarm.seen(lambda: any(d.silent for d in swarm.coordinator._roster.devices()))
        await real(self, epoch, deadline_s)

    monkeypatch.setattr(FakeWorker, "drain", drain)
    await swarm.coordinator.join(offer("c", 2 * NEED))
    await swarm.seen(lambda: "b/cpu" not in swarm.used())
    assert "c/cpu" in swarm.used()


async def test_a_worker_that_said_nothing_while_it_was_measured_is_used_once_it_answers_again(swarm: Swarm) -> None:
    worker = swarm.agents.workers["a:7700"] = FakeWorker("a/cpu", swarm.agents.orders)
    worker.fail_measure = Expired("worker a/cpu did not answer in time")
    joining = asyncio.create_task(swarm.coordinator.join(offer("a", 2 * NEED)))
    await swarm.seen(lambda: worker.measured)
    worker.fail_measure = None
    await joining
    await swarm.seen(lambda: swarm.coordinator.published.plan)
    assert swarm.used() == {"a/cpu"}
