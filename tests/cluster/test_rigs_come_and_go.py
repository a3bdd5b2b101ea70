"""Rigs by name, and Rigs that go: politely, cut off while they leave, or without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from memory_swarm import NEED, Swarm, offer

from cluster.absence import GONE_S, Absence
from cluster.roster import PROMISE_S, Roster
from cluster.target import Progress


async def test_two_rigs_of_one_name_are_told_apart(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED, NEED))
    assert swarm.coordinator.promise_name("b", "a") == "a-2" and swarm.coordinator.promise_name("a", "a") == "a"
    assert [w["name"] for w in swarm.coordinator.status()["workers"]] == ["a/cpu:0", "a/cpu:1"]


async def test_two_rigs_of_one_name_that_knock_before_either_joins_are_told_apart(swarm: Swarm) -> None:
    names = {rig: swarm.coordinator.promise_name(rig, "desk") for rig in ("x", "y", "x")}
    assert names == {"x": "desk", "y": "desk-2"}
    for rig in ("y", "x"):
        await swarm.coordinator.join(replace(offer(rig, NEED), name=names[rig]))
    assert {r["id"]: r["name"] for r in swarm.coordinator.status()["rigs"]} == names


async def test_a_name_that_nobody_came_for_is_free_again(swarm: Swarm) -> None:
    assert swarm.coordinator.promise_name("x", "desk") == "desk"
    swarm.now += PROMISE_S
    assert swarm.coordinator.promise_name("y", "desk") == "desk"


async def test_a_rig_that_stops_listening_while_it_leaves_is_gone_all_the_same(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    await swarm.coordinator.join(offer("b", 2 * NEED))
    worker, before = swarm.agents.workers["a:7700"], list(swarm.agents.orders)
    worker.hold_prepare.clear()
    leaving = asyncio.create_task(_all(swarm.coordinator.leave("b")))
    await swarm.seen(lambda: "a/cpu: prepare" in swarm.agents.orders[-1] and swarm.agents.orders != before)
    leaving.cancel()
    worker.hold_prepare.set()
    await swarm.seen(lambda: [r["name"] for r in swarm.coordinator.status()["rigs"]] == ["a"])
    assert swarm.stages() == {"a/cpu": (0, 8)}


async def test_a_rig_that_went_without_a_word_is_forgotten_after_minutes_and_keeps_its_name(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED))
    await swarm.coordinator.join(offer("b", NEED))
    swarm.agents.workers["b:7700"].alive = False
    swarm.coordinator.report_failure("b/cpu")

    def forgotten() -> bool:
        swarm.now += GONE_S / 10
        return len(swarm.coordinator.status()["rigs"]) == 1

    await swarm.seen(forgotten)
    assert swarm.coordinator.promise_name("c", "b") == "b-2" and swarm.coordinator.promise_name("b", "b") == "b"


def test_a_rig_is_gone_when_it_neither_watches_nor_answers_for_minutes() -> None:
    now = 0.0
    roster, absence = Roster(lambda: now), Absence(lambda: now)
    rig, _ = roster.admit(offer("b", NEED))
    looks = []
    for silent, watches, then in ((1, 1, 0), (1, 1, 900), (1, 0, 901), (0, 0, 1800), (1, 0, 1801), (1, 0, 1980), (1, 0, 1981)):
        now, rig.devices[0].silent = then, bool(silent)
        with absence.watching("b" if watches else ""):
            looks.append(len(absence.gone([rig])))
    assert looks == [0, 0, 0, 0, 0, 0, 1]


async def test_an_agent_that_cannot_be_appointed_holds_up_no_other(swarm: Swarm) -> None:
    swarm.agents.unreachable.add("b/cpu")
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    await swarm.seen(lambda: "block" in swarm.agents.named.get("a/cpu", ""))
    assert "b/cpu" not in swarm.agents.named
    swarm.agents.unreachable.clear()
    await swarm.seen(lambda: "block" in swarm.agents.named.get("b/cpu", ""))


async def _all(said: AsyncIterator[Progress]) -> list[Progress]:
    return [progress async for progress in said]
