"""When nobody talks and enough was counted, the experts that are away are the ones that are seldom chosen."""

from __future__ import annotations

import asyncio

import pytest
from fake_worker import MODELS, FakeWorker
from memory_swarm import NEED, Swarm, offer

from cluster import measuring, second_look
from cluster.planner import Load, Prices
from cluster.planner.chosen import ENOUGH_ROWS

PRICES = Prices.of(MODELS["nano"], Load(1, 64))
BLOCK = 7
ROWS = ENOUGH_ROWS * MODELS["nano"].config.top_k
HOT_AWAY = [ROWS, ROWS, ROWS // 10, 3 * ROWS]
"""Of the Block's experts; the last one is away."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (measuring, second_look):
        monkeypatch.setattr(module, "LOOK_S", 0.02)


@pytest.fixture
async def owner(swarm: Swarm) -> FakeWorker:
    """The Worker with all Blocks; another one holds the last expert of the last Block."""
    await swarm.coordinator.join(offer("a", NEED - PRICES.expert))
    await swarm.coordinator.join(offer("b", PRICES.helper + PRICES.expert))
    assert [(s.worker, s.block, s.experts) for s in swarm.plan.shards] == [("b/cpu", BLOCK, (3,))]
    return swarm.agents.workers["a:7700"]


async def look(swarm: Swarm, worker: FakeWorker) -> None:
    """Have the Coordinator see what its Workers say now."""
    seen = worker.looked_at + 1  # one look may be under way
    while worker.looked_at <= seen:
        swarm.coordinator.report_failure("")
        await asyncio.sleep(0.01)


async def test_the_expert_that_is_chosen_most_comes_home_once_nobody_talks(swarm: Swarm, owner: FakeWorker) -> None:
    before = swarm.plan
    owner.sessions = 1
    await look(swarm, owner)
    owner.choices = {BLOCK: HOT_AWAY}
    for _ in range(3):
        swarm.now += measuring.IDLE_S
        await look(swarm, owner)
    assert swarm.plan.epoch == before.epoch
    owner.sessions = 0
    await look(swarm, owner)
    await asyncio.sleep(0.05)  # idleness begins
    swarm.now += measuring.IDLE_S
    await swarm.until(lambda p: p.plan is not None and p.plan.shards[0].experts == (2,))
    assert any("by what was chosen so far" in note for note in swarm.plan.notes)
    assert not any("stays as it is" in note for note in swarm.plan.notes)


async def test_the_same_choices_once_more_move_nothing(swarm: Swarm, owner: FakeWorker) -> None:
    owner.choices = {BLOCK: HOT_AWAY}
    await look(swarm, owner)
    swarm.now += measuring.IDLE_S
    await swarm.until(lambda p: p.plan is not None and p.plan.shards[0].experts == (2,))
    moved = swarm.plan
    for times in (1, 2, 4):
        owner.choices = {BLOCK: [times * count for count in HOT_AWAY]}
        await look(swarm, owner)
        swarm.now += measuring.IDLE_S
        await asyncio.sleep(0.05)
        await swarm.coordinator.join(offer("b", PRICES.helper + PRICES.expert))  # a reason to plan again
        assert (swarm.plan.shards, swarm.plan.routes) == (moved.shards, moved.routes)


async def test_too_few_choices_change_nothing(swarm: Swarm, owner: FakeWorker) -> None:
    before = swarm.plan
    owner.choices = {BLOCK: [count // 20 for count in HOT_AWAY]}
    await look(swarm, owner)
    swarm.now += measuring.IDLE_S
    await asyncio.sleep(0.05)
    await swarm.coordinator.join(offer("b", PRICES.helper + PRICES.expert))
    assert swarm.plan.shards == before.shards
