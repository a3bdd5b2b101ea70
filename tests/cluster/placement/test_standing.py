"""Standby copies are there to serve: whoever is lost, the others can go on with what they hold."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from swarms import Size, Swarm, device, shape, swarm

from cluster.planner import Load, Prices, budget_of, make_plan
from cluster.planner.hardware import Hardware, Links, Speed
from cluster.planner.held import Held
from cluster.planner.standing import taken_over
from swarm.errors import DoesNotFit
from swarm.plan import Plan

SIZE = Size(4, 6, 4, 3)
SPEED = Speed.of(900e9, 70e12, 6e-6, 2)


def planned(asked: Swarm) -> Plan | None:
    try:
        return make_plan(asked.model, asked.hardware, asked.load, 1)
    except DoesNotFit:
        return None


def goes_on(plan: Plan, lost: str) -> bool:
    """Whether a Plan without that Worker serves; it loads nothing and exceeds nobody's memory."""
    left = taken_over(plan, lost)
    if left is None:
        return False
    left.check()
    before, after = Held.by(plan, plan.model), Held.by(left, plan.model)
    assert lost not in {w.name for w in left.workers}
    assert all(not before.missing_bytes(w.name, after.of(w.name)) for w in left.workers)
    assert all(budget_of(left, w.name).total_bytes <= w.memory_bytes for w in left.workers)
    return True


def holds(plan: Plan, name: str) -> set[object]:
    return set(pytest.importorskip("swarm.worker.holdings").parts_of(plan, name))


def test_with_room_for_two_copies_whoever_is_lost_the_others_serve_without_loading_anything() -> None:
    tried = 0
    for seed in range(30):
        asked = swarm(Random(seed), SIZE)
        prices = Prices.of(asked.model, asked.load)
        memory = prices.budget(range(prices.num_blocks), 0, 0, prices.num_blocks).total_bytes * 2
        roomy = [replace(d, spec=replace(d.spec, memory_bytes=memory)) for d in asked.hardware.devices]
        asked = replace(asked.with_devices(roomy), load=replace(asked.load, standby=True))
        plan = planned(asked)
        if plan is None:
            assert len({d.rig for d in roomy}) == 1
            continue
        tried += 1
        for lost in [w.name for w in plan.workers]:
            assert goes_on(plan, lost), f"seed {seed}: {lost} of {plan.routes} {plan.shards} {plan.standbys}"
            left = taken_over(plan, lost)
            assert left and all(holds(left, w.name) <= holds(plan, w.name) for w in left.workers)
    assert tried > 15


def test_what_a_tight_swarm_can_go_on_with_is_held_already_and_fits() -> None:
    seen = {True: 0, False: 0}
    for seed in range(60):
        asked = swarm(Random(seed), SIZE)
        plan = planned(replace(asked, load=replace(asked.load, standby=True)))
        if plan:
            for worker in plan.workers:
                seen[goes_on(plan, worker.name)] += 1
    assert min(seen.values()) > 3


def test_two_that_hold_half_the_model_each_stand_by_for_each_other() -> None:
    blocks = 6
    model, load = shape(blocks, 4), Load(2, 512, standby=True, spread=True)
    prices = Prices.of(model, load)
    memory = prices.budget(range(blocks // 2), 0, 0, blocks // 2, frozenset(range(blocks))).total_bytes
    asked = Swarm(model, Hardware(tuple(device(i, "ab"[i], memory, SPEED) for i in range(2)), Links()), load)
    plan = planned(asked)
    assert plan and len(plan.routes[0].stages) == 2
    assert all(w.planned_bytes == memory for w in plan.workers if w.name)
    assert all(goes_on(plan, w.name) for w in plan.workers)


def test_without_room_for_the_ends_a_copy_is_kept_and_does_not_pass_for_complete() -> None:
    model, load = shape(4, 4), Load(2, 512, standby=True)
    prices = Prices.of(model, load)
    memory = prices.budget(range(2), 0, 0, 2).total_bytes + max(prices.sizes.embedding, prices.sizes.head)
    asked = Swarm(model, Hardware(tuple(device(i, "ab"[i], memory, SPEED) for i in range(2)), Links()), load)
    plan = planned(asked)
    assert plan and {b for s in plan.standbys for b in s.blocks} == set(range(4))
    assert not any(goes_on(plan, w.name) for w in plan.workers)
