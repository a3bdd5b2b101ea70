"""Giving Devices back for a while, with Workers in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster.coordinator import Coordinator
from cluster.idle_unload import IdleUnload
from cluster.memo import Memo
from cluster.pauses import Pauses
from cluster.target import Progress
from swarm.errors import DoorError, UsageError


async def done(happening: AsyncIterator[Progress]) -> str:
    return [progress.message async for progress in happening][-1]


async def three(swarm: Swarm) -> None:
    for rig in ("a", "b", "c"):
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4))


def held_by(swarm: Swarm, worker: str) -> bool:
    return bool(swarm.agents.workers[f"{worker.partition('/')[0]}:7700"].plans)


async def test_a_pause_that_nobody_waits_for_gives_the_memory_back_all_the_same(swarm: Swarm) -> None:
    for rig in "ab":
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4))
    pausing = asyncio.create_task(done(swarm.coordinator.pausing.pause("b")))
    await asyncio.sleep(0)
    pausing.cancel()  # Ctrl-C of `swarm pause`
    await swarm.seen(lambda: not held_by(swarm, "b/cpu"))


async def test_what_a_paused_device_holds_moves_and_comes_back_with_resume(swarm: Swarm) -> None:
    await three(swarm)
    gone = sorted(swarm.used())[0]
    loss = await swarm.coordinator.pausing.loss(gone.partition("/")[0])
    assert loss.devices == (gone,) and loss.num_bytes > 0 and loss.seconds > 0 and not loss.shortage
    assert loss.before > 0 < loss.after
    said = await done(swarm.coordinator.pausing.pause(gone.partition("/")[0], "cpu"))
    assert gone not in swarm.used() and not held_by(swarm, gone)
    assert "is paused" in said and "given back" in said
    assert {w["name"]: w["out"] for w in swarm.coordinator.status()["workers"]}[gone] == "paused by its people"
    await swarm.coordinator.join(offer(gone.partition("/")[0], NEED * 3 // 4))  # a rig that comes back finds it paused
    await swarm.coordinator.worker_restarted(gone.partition("/")[0], f"{gone.partition('/')[0]}:7700")
    assert gone not in swarm.used() and not held_by(swarm, gone)
    await done(swarm.coordinator.pausing.resume(gone.partition("/")[0]))
    assert not {w["out"] for w in swarm.coordinator.status()["workers"]} - {""}


async def test_where_the_rest_does_not_hold_the_model_that_is_told_and_the_memory_is_free_all_the_same(swarm: Swarm) -> None:
    for rig in ("a", "b"):
        await swarm.coordinator.join(offer(rig, NEED * 3 // 4))
    loss = await swarm.coordinator.pausing.loss("b")
    assert "needs" in loss.shortage and "has" in loss.shortage and loss.after == 0
    said = await done(swarm.coordinator.pausing.pause("b"))
    assert "the swarm needs" in said and swarm.coordinator.published.plan is None and not held_by(swarm, "b/cpu")
    assert "; b/cpu is paused: `swarm resume b` brings it back" in said
    await done(swarm.coordinator.pausing.resume("b", "b/cpu"))
    assert swarm.used() == {"a/cpu", "b/cpu"}


async def test_what_is_not_there_cannot_be_paused(swarm: Swarm) -> None:
    await three(swarm)
    with pytest.raises(DoorError, match="attic is no rig of this swarm: it has a, b, c"):
        await swarm.coordinator.pausing.loss("attic")
    with pytest.raises(UsageError, match="a has no device cuda:7: give --device with one of cpu"):
        await done(swarm.coordinator.pausing.pause("a", "cuda:7"))


async def test_a_restarted_coordinator_keeps_it_paused_and_a_new_up_does_not(swarm: Swarm, tmp_path: Path) -> None:
    memo = Memo(tmp_path / "target.json")
    memo.pauses(forget=True).set([("c", "cpu")], True)
    for forget, used in ((False, {"a/cpu", "b/cpu"}), (True, {"c/cpu"})):
        await swarm.coordinator.stop()
        swarm.coordinator = Coordinator(
            TARGET, type(swarm.agents)(), "a", lambda: swarm.now, swarm.remembered.append, pauses=memo.pauses(forget)
        )
        await swarm.coordinator.start()
        for rig, size in (("a", NEED * 3 // 4), ("b", NEED * 3 // 4), ("c", NEED * 2)):
            await swarm.coordinator.join(offer(rig, size))
        assert swarm.used() == used


def test_pauses_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "paused.json").write_text("[1, 2]")
    assert not Memo(tmp_path / "target.json").pauses(forget=False).has("c", "cpu")
    kept: list[str] = []
    pauses = Pauses(keep=kept.append)
    pauses.set([("c", "cpu")], True)
    pauses.set([("c", "cpu")], True)
    pauses.set([("c", "cpu")], False)
    assert kept == ['[["c", "cpu"]]', "[]"]


async def test_memory_is_given_back_after_so_long_without_a_token_and_not_before() -> None:
    now, tokens, unloaded = [0.0], [0], []

    async def unload() -> None:
        unloaded.append(now[0])

    after = [100.0]
    idle = IdleUnload(lambda: now[0], lambda: after[0], lambda: tokens[0], unload)
    for at, count in ((0.0, 0), (99.0, 0), (99.5, 1), (150.0, 2), (249.0, 2)):
        now[0], tokens[0] = at, count
        await idle.look()
    assert not unloaded
    now[0] = 250.0
    await idle.look()
    assert unloaded == [250.0]
    after[0] = 0.0
    await idle.look()
    assert len(unloaded) == 1
