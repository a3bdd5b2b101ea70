"""Rigs that drop and come back again and again are held back, for longer each time, and let in again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_worker import FakeWorker
from memory_swarm import NEED, Swarm, offer

from cluster import flapping
from cluster.flapping import DROPS, HOLD_MOST_S, HOLD_S, STEADY_S, Flapping
from cluster.roster import RigOffer


async def come_and_drop(swarm: Swarm, rig: RigOffer) -> None:
    """Join, be there, and be gone without a word, Workers and all."""
    address = rig.devices[0].worker_address
    swarm.agents.workers[address] = worker = FakeWorker(f"{rig.name}/cpu", swarm.agents.orders)
    await swarm.coordinator.join(rig)
    watching = swarm.coordinator.watch(rig.rig_id)
    await anext(watching)
    worker.alive = False
    await watching.aclose()  # type: ignore[attr-defined]
    swarm.coordinator.report_failure(f"{rig.name}/cpu")
    await swarm.seen(lambda: swarm.coordinator.published.plan is None or f"{rig.name}/cpu" not in swarm.used())


def test_each_drop_in_a_row_doubles_the_time_and_a_steady_rig_begins_anew() -> None:
    now = 0.0
    comings, held = Flapping(lambda: now), []
    for _ in range(DROPS + 7):
        comings.dropped("b")
        held.append(comings.held_s("b"))
        now += held[-1] + STEADY_S / 2
    assert held == [0.0] * (DROPS - 1) + [HOLD_S, 60.0, 120.0, 240.0, 480.0, HOLD_MOST_S, HOLD_MOST_S, HOLD_MOST_S]
    for _ in range(2000):
        comings.dropped("b")
    assert comings.held_s("b") == HOLD_MOST_S
    now += HOLD_MOST_S + STEADY_S
    comings.dropped("b")
    assert comings.held_s("b") == comings.held_s("c") == 0.0


async def test_a_rig_that_drops_again_and_again_is_held_back_with_a_message_and_let_in_by_itself(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flapping, "HOLD_S", 3.0)
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    b = offer("b", 2 * NEED)
    for _ in range(DROPS):
        await come_and_drop(swarm, b)
    before = swarm.plan.epoch
    swarm.agents.workers["b:7700"].alive = True
    await swarm.coordinator.join(b)
    assert swarm.used() == {"a/cpu"} and swarm.plan.epoch == before
    (said,) = swarm.coordinator.left_out("b")
    assert said.startswith("b/cpu is left out: its rig dropped 4 times in a row and is held back for ")
    assert {w["name"]: w["out"] for w in swarm.coordinator.status()["workers"]}["b/cpu"] in said
    await swarm.seen(lambda: swarm.used() == {"a/cpu", "b/cpu"})
    assert swarm.coordinator.left_out("b") == []


async def test_the_same_rig_is_held_back_under_whatever_address_it_returns(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    b = offer("b", 2 * NEED)
    for number in range(DROPS):
        await come_and_drop(swarm, replace(b, devices=(replace(b.devices[0], worker_address=f"b{number}:7700"),)))
    await swarm.coordinator.join(b)
    assert "held back" in "".join(swarm.coordinator.left_out("b"))


async def test_a_rig_that_drops_is_let_in_at_once_where_nothing_fits_without_it(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    for _ in range(DROPS + 1):
        await come_and_drop(swarm, offer("b", NEED * 3 // 4))
    swarm.agents.workers["b:7700"].alive = True
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    assert swarm.used() == {"a/cpu", "b/cpu"} and swarm.coordinator.left_out("b") == []


async def test_a_rig_that_lost_only_its_connection_and_serves_on_is_not_held_back(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    for _ in range(DROPS + 1):
        await swarm.coordinator.join(offer("b", 2 * NEED))
        watching = swarm.coordinator.watch("b")
        await anext(watching)
        await watching.aclose()  # type: ignore[attr-defined]
    await swarm.coordinator.join(offer("b", 2 * NEED))
    assert swarm.used() == {"a/cpu", "b/cpu"} and swarm.coordinator.left_out("b") == []


@pytest.mark.parametrize("hangs_up_first", [False, True])
async def test_a_rig_that_leaves_politely_drops_nothing(swarm: Swarm, hangs_up_first: bool) -> None:
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    for _ in range(DROPS + 1):
        await swarm.coordinator.join(offer("b", 2 * NEED))
        watching = swarm.coordinator.watch("b")
        await anext(watching)
        if hangs_up_first:  # as a process does that ends: it stops all that it does, then it says goodbye
            await watching.aclose()  # type: ignore[attr-defined]
        [_ async for _ in swarm.coordinator.leave("b")]
        await watching.aclose()  # type: ignore[attr-defined]
    await swarm.coordinator.join(offer("b", 2 * NEED))
    assert swarm.used() == {"a/cpu", "b/cpu"}


def test_a_goodbye_takes_only_the_drop_back_that_was_its_own() -> None:
    comings = Flapping(lambda: 0.0)
    for _ in range(DROPS):
        comings.dropped("b")
        comings.joined("b")
    comings.left("b")
    assert comings.held_s("b") == HOLD_S
    comings.dropped("b")
    comings.left("b")
    assert comings.held_s("b") == HOLD_S
