"""After a loss the swarm serves again with what is held already, or with the same Plan; what is best is decided later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster import returning
from cluster.planner.moving import moved_bytes
from swarm.plan import Plan


@asynccontextmanager
async def standing_by(memory_bytes: int) -> AsyncIterator[Swarm]:
    """Three Rigs with standby copies."""
    found = Swarm(replace(TARGET, standby=True))
    await found.coordinator.start()
    for rig in "abc":
        await found.coordinator.join(offer(rig, memory_bytes))
    yield found
    await found.coordinator.stop()


def newer(swarm: Swarm, than: Plan) -> Callable[[], bool]:
    return lambda: bool((now := swarm.coordinator.published.plan) and now.epoch > than.epoch)


async def test_when_a_worker_dies_its_standby_copies_serve_at_once_and_nothing_is_loaded() -> None:
    async with standing_by(NEED * 9 // 10) as swarm:
        before = swarm.plan
        lost = before.routes[0].last
        swarm.agents.workers[before.worker(lost).address].alive = False
        swarm.coordinator.report_failure(lost)
        await swarm.seen(newer(swarm, before))
        assert len(before.routes[0].stages) > 1 and lost not in swarm.used()
        assert not any(moved_bytes(before, swarm.plan).values())
        assert any("standby copies serve in the place of" in note for note in swarm.plan.notes)


async def test_after_that_the_best_plan_for_what_is_left_is_decided_with_copies_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returning, "SETTLED_S", 0.1)
    async with standing_by(NEED * 11 // 10) as swarm:
        before = swarm.plan
        lost = before.routes[0].entry
        swarm.agents.workers[before.worker(lost).address].alive = False
        swarm.coordinator.report_failure(lost)
        await swarm.seen(lambda: lost not in swarm.used() and swarm.plan.standbys)
        assert {b for s in swarm.plan.standbys for b in s.blocks} == set(range(8))


async def test_a_worker_that_is_started_anew_gets_just_what_it_had(swarm: Swarm) -> None:
    for rig in "ab":
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4))
    before, orders = swarm.plan, len(swarm.agents.orders)
    swarm.agents.workers["b:7700"].plans.clear()
    await swarm.coordinator.worker_restarted("b", "b:7700")
    await swarm.seen(newer(swarm, before))
    assert (swarm.plan.routes, swarm.plan.shards) == (before.routes, before.shards)
    assert [o for o in swarm.agents.orders[orders:] if "prepare" in o]


@pytest.mark.parametrize("going", ["leaves", "is paused"])
async def test_who_goes_while_another_is_waited_for_goes_out_of_the_plan_first(swarm: Swarm, going: str) -> None:
    for rig in "abcd":
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4, spread=True))
    assert {"a/cpu", "b/cpu"} <= swarm.used()
    watching = swarm.coordinator.watch("b")
    await anext(watching)
    swarm.agents.workers["b:7700"].alive = False
    swarm.coordinator.report_failure("b/cpu")
    await swarm.seen(lambda: not all(w["alive"] for w in swarm.coordinator.status()["workers"]))
    said = swarm.coordinator.leave("a") if going == "leaves" else swarm.coordinator.pausing.pause("a")
    [_ async for _ in said]
    assert swarm.coordinator.published.plan is None or "a/cpu" not in swarm.used()
    await watching.aclose()  # type: ignore[attr-defined]


async def test_a_worker_whose_rig_is_there_is_waited_for_before_anything_moves(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "BACK_S", 60.0)
    await swarm.coordinator.join(offer("a", 2 * NEED))
    await swarm.coordinator.join(offer("b", 2 * NEED, spread=True))
    watching = swarm.coordinator.watch("b")
    await anext(watching)
    before, worker = swarm.plan, swarm.agents.workers["b:7700"]
    worker.alive = False
    swarm.coordinator.report_failure("b/cpu")
    await swarm.seen(lambda: not all(w["alive"] for w in swarm.coordinator.status()["workers"]))
    assert swarm.plan is before
    worker.alive = True
    worker.plans.clear()
    await swarm.coordinator.worker_restarted("b", "b:7700")
    await swarm.seen(newer(swarm, before))
    assert swarm.plan.routes == before.routes
    await watching.aclose()  # type: ignore[attr-defined]
