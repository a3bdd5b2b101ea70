"""What holds of every Plan, for a laptop beside a card and for 64 Devices; and that more hardware never makes it worse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from swarms import Size, Swarm, device, swarm

from benchmarks.home_swarms import CARDS, home_swarm
from cluster.planner import budget_of, make_plan
from cluster.planner.hardware import Link, Links, Measured, Speed
from cluster.planner.predict import objective_s, predict
from swarm.errors import DoesNotFit
from swarm.plan import Plan

HOME = Size(5, 7, 8, 6)
LONGER = 1 + 1e-9
"""What rounding may make of equal seconds."""
LARGE = ((16, 0), (64, 2))
"""Devices and seeds."""


def check(plan: Plan, asked: Swarm) -> None:
    plan.check()
    assert Plan.from_json(plan.to_json()) == plan
    config, rigs = plan.model.config, {d.name: d.rig for d in asked.hardware.devices}
    for index, route in enumerate(plan.routes):
        assert [b for s in route.stages for b in s.blocks] == list(range(config.num_blocks))
        for stage in route.stages:
            for block in stage.blocks:
                away = plan.remote_experts(stage.worker, block)
                shards = [s for s in plan.shards if (s.block, s.route) == (block, index) and not s.copy]
                assert sorted(e for s in shards for e in s.experts) == sorted(away)
                assert sorted({*away, *plan.local_experts(stage.worker, block)}) == list(range(config.num_experts))
                assert all(e in plan.local_experts(w, block) for e, w in away.items())
    for worker in plan.workers:
        budget = budget_of(plan, worker.name)
        assert worker.planned_bytes == budget.total_bytes <= worker.memory_bytes
        standing = any(s.worker == worker.name for s in plan.standbys)
        assert plan.route_of(worker.name) is not None or plan.shards_of(worker.name) or standing
    if asked.load.standby:
        for block in range(config.num_blocks):
            owners = {s.worker for r in plan.routes for s in r.stages if block in s.blocks}
            serving = {rigs[w] for w in owners | {s.worker for s in plan.shards if s.block == block}}
            assert any(block in s.blocks and rigs[s.worker] not in serving for s in plan.standbys)


def planned(asked: Swarm, previous: Plan | None = None) -> tuple[Plan, float] | None:
    """The Plan, and its `objective_s`."""
    try:
        plan = make_plan(asked.model, asked.hardware, asked.load, 2 if previous else 1, previous)
    except DoesNotFit:
        return None
    return plan, objective_s(predict(plan, asked.hardware, asked.load), asked.load)


def large(count: int, seed: int, objective: str = "balanced") -> Swarm:
    home = home_swarm(Random(seed), max(4, count // 4), count)
    return Swarm(home.model, home.hardware, home.for_objective(objective))


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_plan_of_a_home_holds_every_invariant_and_is_made_again_from_devices_in_any_order(random: Random) -> None:
    asked = swarm(random, HOME)
    found = planned(asked)
    shuffled = list(asked.hardware.devices)
    random.shuffle(shuffled)
    again = planned(asked.with_devices(shuffled))
    assert found == again
    if found:
        check(found[0], asked)
        assert found[0].predicted == predict(found[0], asked.hardware, asked.load)


@pytest.mark.parametrize(("count", "seed"), LARGE)
def test_every_plan_of_a_large_swarm_holds_every_invariant_and_comes_in_time(count: int, seed: int) -> None:
    asked = large(count, seed)
    start = time.process_time()
    found = planned(asked)
    took = time.process_time() - start
    assert found
    check(found[0], asked)
    assert planned(asked.with_devices(asked.hardware.devices[::-1])) == found
    assert took < 10, f"{took:.1f} s of CPU for {count} devices"


def test_ten_different_cards_are_planned_in_seconds() -> None:
    home = home_swarm(Random(7), 5, 10)
    speeds = [replace(d, speed=CARDS[i].speed("fp16", 2)) for i, d in enumerate(home.hardware.devices)]
    asked = Swarm(home.model, replace(home.hardware, devices=tuple(speeds)), home.load)
    start = time.process_time()
    found = planned(asked)
    took = time.process_time() - start
    assert found
    check(found[0], asked)
    assert took < 30, f"{took:.1f} s of CPU"


def better(asked: Swarm, random: Random) -> Iterator[tuple[str, Swarm]]:
    """The swarm with one thing in it better than before."""
    hardware, devices = asked.hardware, asked.hardware.devices
    picked = random.choice(devices)
    yield "one more device", asked.with_devices((*devices, _another(random, devices)))
    yield "faster links", replace(asked, hardware=replace(hardware, links=_faster(hardware.links)))
    memory = replace(picked.spec, memory_bytes=picked.spec.memory_bytes * 5 // 4 + 2**28)
    yield "more memory", asked.with_devices(_with(devices, picked, replace(picked, spec=memory)))
    speed = Speed(
        tuple((r, s / 1.5) for r, s in picked.speed.products),
        picked.speed.start_s / 1.5,
        picked.speed.software_s,
        picked.speed.slowed,
        picked.speed.several_start_s / 1.5,
    )
    yield "a faster device", asked.with_devices(_with(devices, picked, replace(picked, speed=speed)))


def _another(random: Random, devices: tuple[Measured, ...]) -> Measured:
    like, rig = random.choice(devices), random.choice([*(d.rig for d in devices), "new"])
    return device(90, rig, int(like.spec.memory_bytes * random.uniform(0.3, 2)), like.speed)


def _with(devices: tuple[Measured, ...], old: Measured, new: Measured) -> list[Measured]:
    return [new if d is old else d for d in devices]


def _faster(links: Links) -> Links:
    def half(link: Link) -> Link:
        return Link(link.rtt_s / 2, link.bytes_per_s * 2, link.calls_rtt_s / 2)

    return Links({pair: half(link) for pair, link in links.known.items()}, half(links.default), half(links.inside))


@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False))
def test_better_hardware_never_makes_the_prediction_of_a_home_worse(random: Random) -> None:
    asked = swarm(random, HOME)
    before = planned(asked)
    for what, improved in better(asked, random):
        after = planned(improved)
        if before:
            assert after, f"{what}: refused what fitted before"
            assert after[1] <= before[1] * LONGER, f"{what}: {after[1] / before[1] - 1:+.2e}"


@pytest.mark.parametrize(("count", "seed"), [(16, 0), (18, 4)])
def test_better_hardware_never_makes_the_prediction_of_a_large_swarm_worse(count: int, seed: int) -> None:
    asked = large(count, seed)
    before = planned(asked)
    assert before
    for what, improved in better(asked, Random(seed)):
        after = planned(improved, before[0])
        assert after, f"{what}: refused what fitted before"
        check(after[0], improved)
        assert after[1] <= before[1] * LONGER, f"{what}: {after[1] / before[1] - 1:+.2e}"
