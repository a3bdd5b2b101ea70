"""The Coordinator, with Workers in memory."""

from __future__ import annotations

import asyncio

import pytest
from fake_worker import MIB, FakeAgents, FakeWorker
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster.coordinator import Coordinator
from cluster.target import Target
from swarm.errors import CorruptWeights, DoesNotFit, ModelError, NoSwarm


async def test_the_first_rig_that_holds_the_model_serves_it(swarm: Swarm) -> None:
    published = await swarm.coordinator.join(offer("a", NEED + MIB))
    assert published.plan and swarm.stages() == {"a/cpu": (0, 8)}
    assert published.description and published.description.assets
    await swarm.seen(lambda: swarm.agents.named == {"a/cpu": "stage 0 · blocks 0-7 · a cpu"})


async def test_too_little_memory_waits_and_a_join_that_makes_it_fit_serves(swarm: Swarm) -> None:
    published = await swarm.coordinator.join(offer("a", NEED // 2))
    assert published.plan is None
    assert published.waiting.startswith("needs ") and published.waiting.endswith("waiting for `swarm join ...`")
    published = await swarm.coordinator.join(offer("b", NEED))
    assert published.plan and swarm.used() <= {"a/cpu", "b/cpu"}


async def test_commit_comes_after_every_prepare_and_drain_after_every_commit(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    old = swarm.plan.epoch
    await swarm.coordinator.join(offer("b", 2 * NEED))
    new = swarm.plan.epoch
    await swarm.seen(lambda: f"a/cpu: drain {old}" in swarm.agents.orders)
    orders = [o.partition(": ")[2] for o in swarm.agents.orders][2:]
    assert orders == [f"prepare {new}"] * 2 + [f"commit {new}"] * 2 + [f"drain {old}"]
    assert new > old and swarm.used() == {"a/cpu", "b/cpu"}


async def test_a_plan_names_the_epoch_whose_sessions_go_on_under_it_and_none_after_another_model(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    first = swarm.plan
    await swarm.coordinator.join(offer("b", 2 * NEED))
    assert first.follows == 0 and swarm.plan.follows == first.epoch
    _ = [p async for p in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    assert swarm.plan.epoch > first.epoch and swarm.plan.follows == 0


async def test_the_old_plan_serves_while_the_new_one_loads(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    old = swarm.plan
    worker = swarm.agents.workers["a:7700"]
    worker.hold_prepare.clear()
    joining = asyncio.create_task(swarm.coordinator.join(offer("b", 2 * NEED)))
    await swarm.seen(lambda: any("prepare" in o for o in swarm.agents.orders[2:]))
    assert swarm.plan == old and not joining.done()
    worker.hold_prepare.set()
    await joining
    assert swarm.plan.epoch > old.epoch


async def test_joins_during_a_change_are_taken_together_in_the_next(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    swarm.agents.workers["a:7700"].hold_prepare.clear()
    joins = [asyncio.create_task(swarm.coordinator.join(offer("b", NEED)))]
    await swarm.seen(lambda: any("prepare" in o for o in swarm.agents.orders[2:]))
    joins += [asyncio.create_task(swarm.coordinator.join(offer(name, NEED))) for name in "cd"]
    await asyncio.sleep(0)
    swarm.agents.workers["a:7700"].hold_prepare.set()
    await asyncio.gather(*joins)
    assert swarm.used() == {"a/cpu", "b/cpu", "c/cpu", "d/cpu"}
    assert len({o.split()[2] for o in swarm.agents.orders if "prepare" in o}) == 3


async def test_a_rig_that_brings_nothing_useful_is_named_in_the_notes_and_changes_no_epoch(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED))
    before = swarm.plan.epoch
    await swarm.coordinator.join(offer("b", 2 * NEED))
    assert swarm.plan.epoch == before and any("b/cpu not used" in note for note in swarm.plan.notes)
    await swarm.seen(lambda: swarm.agents.named.get("b/cpu") == "idle · b cpu")


async def test_leaving_moves_the_blocks_first(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    await swarm.coordinator.join(offer("b", 2 * NEED))
    said = [p async for p in swarm.coordinator.leave("b")]
    assert said[-1].done and "left" in said[-1].message
    assert swarm.stages() == {"a/cpu": (0, 8)}
    assert [w["name"] for w in swarm.coordinator.status()["workers"]] == ["a/cpu"]


async def test_a_dead_worker_is_planned_around(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    await swarm.coordinator.join(offer("b", 2 * NEED))
    swarm.agents.workers["b:7700"].alive = False
    swarm.coordinator.report_failure("b/cpu")
    await swarm.until(lambda p: p.plan is not None and len(p.plan.workers) == 1)
    assert swarm.stages() == {"a/cpu": (0, 8)}
    alive = {w["name"]: w["alive"] for w in swarm.coordinator.status()["workers"]}
    assert alive == {"a/cpu": True, "b/cpu": False}


async def test_a_worker_that_was_silent_while_its_epoch_was_retired_gives_it_back_when_it_answers(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    await swarm.coordinator.join(offer("b", 2 * NEED))
    old, worker = swarm.plan.epoch, swarm.agents.workers["b:7700"]
    worker.alive = False
    swarm.coordinator.report_failure("b/cpu")
    await swarm.until(lambda p: p.plan is not None and len(p.plan.workers) == 1)
    worker.alive = True
    await swarm.until(lambda p: p.plan is not None and len(p.plan.workers) == 2)
    await swarm.seen(lambda: list(worker.plans) == [swarm.plan.epoch] and swarm.plan.epoch > old)


async def test_a_loss_that_no_longer_fits_withdraws_the_plan_until_the_worker_is_back(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    epoch = swarm.plan.epoch
    dead = swarm.agents.workers["b:7700"]
    dead.alive = False
    swarm.coordinator.report_failure("b/cpu")
    assert "waiting for" in (await swarm.until(lambda p: p.plan is None)).waiting
    dead.alive, dead.pid, dead.plans, dead.epoch = True, dead.pid + 1, {}, 0
    await swarm.coordinator.worker_restarted("b", "b:7700")
    await swarm.until(lambda p: p.plan is not None)
    assert swarm.plan.epoch > epoch and swarm.used() == {"a/cpu", "b/cpu"}


async def test_a_worker_that_restarts_within_a_poll_is_prepared_again(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED))
    epoch, worker = swarm.plan.epoch, swarm.agents.workers["a:7700"]
    worker.pid, worker.plans, worker.epoch = worker.pid + 1, {}, 0
    await swarm.coordinator.worker_restarted("a", "a:7700")
    await swarm.until(lambda p: p.plan is not None and p.plan.epoch > epoch)
    assert worker.epoch == swarm.plan.epoch and swarm.plan.epoch in worker.plans


async def test_a_worker_that_dies_in_prepare_commits_nothing_and_is_left_out(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    old = swarm.plan.epoch
    swarm.agents.workers["b:7700"] = worker = FakeWorker("b/cpu", swarm.agents.orders)
    worker.die_in_prepare = True
    await swarm.coordinator.join(offer("b", 2 * NEED))
    assert swarm.stages() == {"a/cpu": (0, 8)} and swarm.plan.epoch == old
    assert not [o for o in swarm.agents.orders if "commit" in o and str(old) not in o]


async def test_a_worker_that_cannot_load_is_left_out_and_says_why(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    swarm.agents.workers["b:7700"] = worker = FakeWorker("b/cpu", swarm.agents.orders)
    worker.fail_prepare = CorruptWeights("model-00002.safetensors is truncated: fetch it again")
    await swarm.coordinator.join(offer("b", 2 * NEED))
    assert swarm.stages() == {"a/cpu": (0, 8)}
    out = {w["name"]: w["out"] for w in swarm.coordinator.status()["workers"]}
    assert "truncated" in out["b/cpu"] and out["a/cpu"] == ""
    assert swarm.coordinator.left_out("b") == [f"b/cpu is left out: {worker.fail_prepare}"]
    worker.fails_for = "nano"
    [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    assert swarm.used() == {"a/cpu", "b/cpu"}


async def test_loading_another_model_and_back_leaves_one_epoch_on_each_worker(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 8 * NEED))
    worker = swarm.agents.workers["a:7700"]
    for source in ("other", "nano"):
        said = [p async for p in swarm.coordinator.change(lambda _, source=source: Target(source, "fp32", 1, 64))]
        assert said[-1].done and swarm.plan.model.name == source
        assert list(worker.plans) == [swarm.plan.epoch]
    assert not any("release_first" in o for o in swarm.agents.orders)


async def test_what_does_not_fit_beside_the_old_is_released_first_and_the_plan_says_so(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 3 // 2))
    [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    assert any("release_first" in o for o in swarm.agents.orders)
    assert any("pause" in note for note in swarm.plan.notes)


async def test_a_model_that_does_not_fit_is_refused_and_the_old_one_keeps_serving(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    before = swarm.plan
    with pytest.raises(DoesNotFit, match="deep"):
        [_ async for _ in swarm.coordinator.change(lambda _: Target("deep", "fp32", 1, 64))]
    assert swarm.plan == before and swarm.coordinator.target == TARGET


async def test_a_model_that_is_not_there_is_refused_and_the_old_one_keeps_serving(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    before = swarm.plan
    with pytest.raises(ModelError, match=r"config\.json"):
        [_ async for _ in swarm.coordinator.change(lambda _: Target("nowhere", "fp32", 1, 64))]
    assert swarm.plan == before


async def test_a_load_without_a_worker_that_answers_says_so_in_a_whole_sentence(swarm: Swarm) -> None:
    with pytest.raises(NoSwarm, match=r"^the swarm has no worker that answers"):
        [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    await swarm.until(lambda p: p.waiting == "has no worker that answers: waiting for one")


async def test_a_model_that_fails_to_load_after_the_release_brings_the_old_one_back(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 3 // 2))
    worker, old = swarm.agents.workers["a:7700"], swarm.plan.epoch
    worker.fail_prepare, worker.fails_for = CorruptWeights("a file is truncated"), "other"
    with pytest.raises(CorruptWeights):
        [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    assert any("release_first" in o for o in swarm.agents.orders)
    await swarm.until(lambda p: p.plan is not None)
    assert swarm.plan.model.name == "nano" and swarm.plan.epoch > old


async def test_what_a_failed_change_loaded_is_given_back_before_the_next_one(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 19 // 20))
    await swarm.coordinator.join(offer("b", NEED * 19 // 20))
    one, two = swarm.agents.workers["a:7700"], swarm.agents.workers["b:7700"]
    before = len(swarm.agents.orders)
    two.fail_prepare, two.fails_for = CorruptWeights("a file is truncated"), "other"
    with pytest.raises(CorruptWeights):
        [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    assert swarm.plan.model.name == "nano"
    failed = swarm.plan.epoch - 1
    said = [o.partition(": ")[2].split()[:2] for o in swarm.agents.orders[before:]]
    drained = [place for place, order in enumerate(said) if order == ["drain", str(failed)]]
    again = [place for place, order in enumerate(said) if order == ["prepare", str(swarm.plan.epoch)]]
    assert len(drained) == len(again) == 2 and max(drained) < min(again)
    assert list(one.plans) == list(two.plans) == [swarm.plan.epoch]


async def test_an_epoch_that_a_worker_could_not_give_back_is_not_loaded_beside(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 5 // 2))
    worker, first = swarm.agents.workers["a:7700"], swarm.plan.epoch
    worker.keeps = first
    for source in ("other", "deep"):
        [_ async for _ in swarm.coordinator.change(lambda _, source=source: Target(source, "fp32", 1, 64))]
    prepared = [o for o in swarm.agents.orders if "prepare" in o]
    assert ["release_first" in o for o in prepared] == [False, False, True]
    assert list(worker.plans) == [swarm.plan.epoch]


async def test_a_model_that_the_head_cannot_use_fails_its_join() -> None:
    coordinator = Coordinator(Target("nowhere"), FakeAgents(), "a", lambda: 1.0)
    await coordinator.start()
    with pytest.raises(ModelError):
        await coordinator.join(offer("a", NEED))
    await coordinator.stop()


async def test_a_head_that_cannot_load_its_part_fails_its_join_in_the_workers_words(swarm: Swarm) -> None:
    worker = swarm.agents.workers["a:7700"] = FakeWorker("a/cpu", swarm.agents.orders)
    worker.fail_prepare = CorruptWeights("model.safetensors is truncated: fetch it again")
    with pytest.raises(CorruptWeights, match="truncated"):
        await swarm.coordinator.join(offer("a", 2 * NEED))


async def test_an_unknown_rig_is_told_to_join_again(swarm: Swarm) -> None:
    with pytest.raises(Exception, match="let it join again"):
        await swarm.coordinator.worker_restarted("nobody", "x:1")


async def test_status_has_the_documented_keys(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    status = swarm.coordinator.status()
    assert {"epoch", "model", "dtype", "workers", "rigs", "waiting", "notes", "tokens_per_s"} <= status.keys()
    assert status["workers"][0].keys() >= {
        "name", "rig", "device", "pid", "address", "blocks", "experts", "memory", "sessions", "alive",
    }  # fmt: skip
    assert status["workers"][0]["memory"].keys() >= {"total_bytes", "weights_bytes", "kv_bytes", "free_bytes"}
