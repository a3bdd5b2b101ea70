"""A Coordinator that starts where Workers still serve something."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_worker import FakeWorker
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster import adoption
from cluster.measurements import Measurements
from cluster.memo import Memo
from cluster.planner import Speed
from cluster.target import Target


async def test_a_restarted_coordinator_adopts_what_its_workers_serve(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    before, orders = swarm.plan, list(swarm.agents.orders)
    await swarm.again(TARGET, restarted=True)
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    assert swarm.plan.epoch == before.epoch, "its worker serves it, though b has yet to join again"
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    assert swarm.plan.epoch == before.epoch and swarm.agents.orders == orders


async def test_a_restarted_coordinator_that_would_cut_prompts_a_little_otherwise_adopts_all_the_same(swarm: Swarm) -> None:
    for rig, flops in (("a", 1e9), ("b", 1.2e9)):
        worker = swarm.agents.workers[f"{rig}:7700"] = FakeWorker(f"{rig}/cpu", swarm.agents.orders)
        worker.speed = Speed.of(20e9, flops, 10e-6, 4)
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    slower = swarm.agents.workers["b:7700"]
    for times in (1, 1, 1, 2, 2, 2):
        slower.serves(rows=10, seconds_a_byte=1e-10 * times)
        seen = slower.looked_at
        swarm.coordinator.report_failure("b/cpu")  # look now
        await swarm.seen(lambda seen=seen: slower.looked_at > seen)  # type: ignore[misc]
    await swarm.seen(lambda: any("b cpu reads 2.0 times slower" in note for note in swarm.plan.notes))
    before = swarm.plan
    await swarm.again(TARGET, restarted=True)  # how slow it was is forgotten
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    assert swarm.plan.epoch == before.epoch


async def test_how_slow_a_device_serves_is_known_after_a_restart_so_that_nothing_moves_and_forgotten_when_its_rig_leaves(
    swarm: Swarm,
) -> None:
    for rig in "ab":
        worker = swarm.agents.workers[f"{rig}:7700"] = FakeWorker(f"{rig}/cpu", swarm.agents.orders)
        worker.speed = Speed.of(1e9, 1e9, 10e-6, 4)
        await swarm.coordinator.join(offer(rig, NEED * 7 // 8))
    even, slower = swarm.plan, swarm.agents.workers["b:7700"]
    for times in (1, 1, 1, 4, 4, 4):
        slower.serves(rows=10, seconds_a_byte=1e-9 * times)
        seen = slower.looked_at
        swarm.coordinator.report_failure("b/cpu")  # look now
        await swarm.seen(lambda seen=seen: slower.looked_at > seen)  # type: ignore[misc]
    await swarm.seen(lambda: swarm.plan.epoch > even.epoch and swarm.plan.routes != even.routes)
    before, orders, kept = swarm.plan, list(swarm.agents.orders), swarm.coordinator.measurements.to_json()
    await swarm.again(TARGET, restarted=True, book=Measurements(kept))
    for rig in "abb":  # once more: now it is decided anew
        await swarm.coordinator.join(offer(rig, NEED * 7 // 8))
    assert (swarm.plan.epoch, swarm.plan.routes, swarm.agents.orders) == (before.epoch, before.routes, orders)
    assert any("b cpu reads 4.0 times slower" in note for note in swarm.plan.notes)
    [_ async for _ in swarm.coordinator.leave("b")]
    await swarm.coordinator.join(offer("b", NEED * 7 // 8))
    assert not any("times slower" in note for note in swarm.plan.notes)


async def test_what_is_retired_after_a_coordinator_waited_in_vain_is_given_back(swarm: Swarm) -> None:
    for rig in "ab":
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4))
    await swarm.again(TARGET, restarted=True)
    for rig in "ab":  # b's Worker serves while its Rig is awaited; then both were started anew
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4))
        swarm.agents.workers[f"{rig}:7700"].start_anew()
        if rig == "a":
            await swarm.coordinator.worker_restarted("a", "a:7700")
            swarm.agents.workers["b:7700"].start_anew()
    await swarm.coordinator.worker_restarted("b", "b:7700")
    await swarm.until(lambda p: p.plan is not None)
    await swarm.coordinator.join(offer("c", 4 * NEED))
    [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    await swarm.seen(lambda: all(set(w.plans) <= {swarm.plan.epoch} for w in swarm.agents.workers.values()))


async def test_who_leaves_while_others_are_awaited_is_in_no_plan_behind_that(swarm: Swarm) -> None:
    for rig in "abc":
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4, spread=True))
    await swarm.again(TARGET, restarted=True)
    for rig in "ab":
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4, spread=True))
    await swarm.coordinator.join(offer("d", 4 * NEED))
    assert swarm.used() == {"a/cpu", "b/cpu", "c/cpu"}
    [_ async for _ in swarm.coordinator.leave("b")]
    assert swarm.coordinator.published.plan is None or "b/cpu" not in swarm.used()


async def test_a_restarted_coordinator_waits_for_rigs_as_long_as_their_workers_serve(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "ADOPT_S", 0.0)
    monkeypatch.setattr(adoption, "LOOK_S", 0.01)
    await swarm.coordinator.join(offer("a", NEED * 3, spread=True))
    await swarm.coordinator.join(offer("b", NEED * 3))
    before, orders = swarm.plan, list(swarm.agents.orders)
    await swarm.again(TARGET, restarted=True)
    await swarm.coordinator.join(offer("a", NEED * 3, spread=True))
    looked = swarm.agents.workers["b:7700"].looked_at
    await swarm.seen(lambda: swarm.agents.workers["b:7700"].looked_at > looked + 5)
    assert swarm.plan.epoch == before.epoch and swarm.agents.orders == orders
    swarm.agents.workers["b:7700"].alive = False
    await swarm.until(lambda p: p.plan is not None and p.plan.epoch > before.epoch)
    assert swarm.used() == {"a/cpu"}


async def test_one_late_answer_of_a_worker_whose_rig_is_awaited_moves_nothing(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "LOOK_S", 0.01)
    await swarm.coordinator.join(offer("a", NEED * 3, spread=True))
    await swarm.coordinator.join(offer("b", NEED * 3))
    before, orders = swarm.plan, list(swarm.agents.orders)
    await swarm.again(TARGET, restarted=True)
    await swarm.coordinator.join(offer("a", NEED * 3, spread=True))
    swarm.now += adoption.ADOPT_S + 20.0  # all that time they answered
    swarm.agents.workers["b:7700"].alive = False
    await swarm.until(lambda p: "come back" in p.waiting)
    swarm.agents.workers["b:7700"].alive = True
    await swarm.until(lambda p: p.plan is not None)
    assert swarm.plan.epoch == before.epoch and swarm.agents.orders == orders


async def test_a_load_survives_a_restart_also_where_the_plan_cannot_be_taken_over(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "ADOPT_S", 0.1)
    await swarm.coordinator.join(offer("a", NEED * 2))
    await swarm.coordinator.join(offer("b", NEED * 2, spread=True))
    asked = Target("other", "auto", 1, 64)
    [_ async for _ in swarm.coordinator.change(lambda _: asked)]
    assert swarm.remembered == [asked]
    before = swarm.plan
    await swarm.again(swarm.remembered[-1], restarted=True)
    swarm.agents.workers["b:7700"].alive = False
    joining = asyncio.create_task(swarm.coordinator.join(offer("a", NEED * 2)))
    await swarm.until(lambda p: "come back" in p.waiting)
    swarm.now += 1.0
    await swarm.until(lambda p: p.plan is not None)
    await joining
    assert swarm.plan.model.name == "other" and swarm.plan.epoch > before.epoch and swarm.coordinator.target == asked


async def test_what_survivors_hold_is_counted_after_a_restart(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 3 // 2))
    old = swarm.plan.epoch
    await swarm.again(Target("other", "fp32", 1, 64), restarted=False)
    await swarm.coordinator.join(offer("a", NEED * 3 // 2))
    assert f"a/cpu: prepare {swarm.plan.epoch} release_first" in swarm.agents.orders
    await swarm.seen(lambda: list(swarm.agents.workers["a:7700"].plans) == [swarm.plan.epoch] and swarm.plan.epoch > old)


@pytest.mark.parametrize("asked", [Target("other", "fp32", 1, 64), Target("nano", "fp32", 2, 64)])
async def test_a_new_up_serves_what_it_names_not_what_it_finds(swarm: Swarm, asked: Target) -> None:
    await swarm.coordinator.join(offer("a", NEED * 4))
    before = swarm.plan.epoch
    await swarm.again(asked, restarted=False)
    await swarm.coordinator.join(offer("a", NEED * 4))
    assert (swarm.plan.model.name, swarm.plan.sessions) == (asked.source, asked.sessions) and swarm.plan.epoch > before


async def test_a_plan_that_is_taken_over_leaves_what_was_asked_as_it_was_asked(swarm: Swarm) -> None:
    asked = Target("nano", "auto", 1, 1_000_000)
    await swarm.again(asked, restarted=False)
    await swarm.coordinator.join(offer("a", NEED * 8))
    before, orders = swarm.plan, list(swarm.agents.orders)
    assert before.context == 1024
    await swarm.again(asked, restarted=True)
    await swarm.coordinator.join(offer("a", NEED * 8))
    assert swarm.plan.epoch == before.epoch and swarm.agents.orders == orders and swarm.coordinator.target == asked


async def test_a_load_while_the_rigs_of_the_old_plan_come_back_is_loaded_beside_it(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 4))
    await swarm.coordinator.join(offer("b", NEED * 4, spread=True))
    old = swarm.plan.epoch
    await swarm.seen(lambda: list(swarm.agents.workers["a:7700"].plans) == [old])
    await swarm.again(TARGET, restarted=True)
    swarm.agents.workers["b:7700"].alive = False
    assert "come back" in (await swarm.coordinator.join(offer("a", NEED * 4))).waiting
    before = len(swarm.agents.orders)
    [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    said = [o.partition(": ")[2] for o in swarm.agents.orders[before:]]
    assert said == [f"prepare {swarm.plan.epoch}", f"commit {swarm.plan.epoch}", f"drain {old}"]


def test_what_was_asked_for_is_kept_in_a_file(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "target.json")
    assert memo.read() is None
    memo.write(TARGET)
    assert Memo(tmp_path / "target.json").read() == TARGET
    (tmp_path / "target.json").write_text("{")
    assert memo.read() is None
    Memo(tmp_path / "nowhere" / "target.json").write(TARGET)
