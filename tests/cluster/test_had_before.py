"""What a Worker that serves nothing now had before counts as there when Blocks are given out: it gets them again."""

from __future__ import annotations

from memory_swarm import NEED, Swarm, offer

from cluster.had_before import HadBefore
from cluster.planner.held import Held
from swarm.plan import Plan


async def two_plans(swarm: Swarm) -> tuple[Plan, Plan]:
    """One of a and b, and a later one of a alone."""
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    both = swarm.plan
    await swarm.coordinator.join(offer("a", NEED * 2))
    [_ async for _ in swarm.coordinator.leave("b")]
    return both, swarm.plan


def blocks(plan: Plan | None, model: Plan, worker: str) -> set[int]:
    return {block for kind, block, _ in Held.by(plan, model.model).of(worker) if kind == "core"}


async def test_a_worker_that_returns_has_the_blocks_of_the_plan_that_had_it_last(swarm: Swarm) -> None:
    both, alone = await two_plans(swarm)
    had = HadBefore()
    assert had.beside(None, []) is None and had.beside(both, list(swarm.coordinator._roster.devices())) == both
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    device = next(d for d in swarm.coordinator._roster.devices() if d.name == "b/cpu")
    assert blocks(had.beside(alone, [device]), alone, "b/cpu") == blocks(both, both, "b/cpu") != set()
    assert blocks(alone, alone, "b/cpu") == set()


async def test_a_worker_that_serves_another_coordinators_plan_has_the_blocks_of_that(swarm: Swarm) -> None:
    both, alone = await two_plans(swarm)
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    device = next(d for d in swarm.coordinator._roster.devices() if d.name == "b/cpu")
    assert device.status is not None
    device.status.epoch, device.status.plan = both.epoch, both.to_json()
    assert blocks(HadBefore().beside(alone, [device]), alone, "b/cpu") == blocks(both, both, "b/cpu") != set()
    device.status.plan = "{}"
    assert HadBefore().beside(alone, [device]) == alone
