"""Standby copies are there to serve: whoever is lost, the others can go on with what they hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from random import Random

import pytest
from swarms import Size, Swarm, device, shape, swarm

from cluster.planner import Load, Prices, budget_of, make_plan
from cluster.planner.gathering import gathered
from cluster.planner.hardware import Hardware, Links, Speed
from cluster.planner.held import Held
from cluster.planner.standing import taken_over
from swarm.errors import DoesNotFit
from swarm.plan import Plan, Route, Stage, Standby

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
    for seed in range(20):
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
    assert tried > 8


def test_what_a_tight_swarm_can_go_on_with_is_held_already_and_fits() -> None:
    seen = {True: 0, False: 0}
    for seed in range(60):
        asked = swarm(Random(seed), SIZE)
        plan = planned(replace(asked, load=replace(asked.load, standby=True)))
        if plan:
            for worker in plan.workers:
                seen[goes_on(plan, worker.name)] += 1
    assert min(seen.values()) > 3


def most_complete(plan: Plan) -> int:
    """How many Workers with Stages can be lost at most, by trying every place of every copy, with and without the ends."""
    rigs, blocks, most = {w.name: w.rig for w in plan.workers}, plan.model.config.num_blocks, 0
    owner = [next(s.worker for s in plan.routes[0].stages if b in s.blocks) for b in range(blocks)]
    places = [[w for w in rigs if rigs[w] != rigs[o]] for o in owner]
    for at in product(*places):
        for ends in product((False, True), repeat=2 if blocks > 1 else 1):
            runs = tuple(Standby(w, b, b + 1, b in (0, blocks - 1) and ends[-1 if b else 0]) for b, w in enumerate(at))
            tried = replace(plan, standbys=_joined(runs, plan))
            if all(budget_of(tried, w.name).total_bytes <= w.memory_bytes for w in plan.workers):
                most = max(most, sum(goes_on(tried, s.worker) for s in plan.routes[0].stages))
    return most


def _joined(runs: tuple[Standby, ...], plan: Plan) -> tuple[Standby, ...]:
    """Copies one after the other on one Worker as one, within each Stage."""
    starts, joined = {s.first for s in plan.routes[0].stages}, list[Standby]()
    for run in runs:
        if joined and joined[-1].worker == run.worker and run.first not in starts:
            joined[-1] = replace(joined[-1], end=run.end, ends=joined[-1].ends or run.ends)
        else:
            joined.append(run)
    return tuple(joined)


def stood_by_anyhow(random: Random) -> Plan:
    """A Plan of two or three Stages of four Blocks, copies anywhere on other Rigs, and room for up to two Blocks more on each."""
    model, rigs = shape(4, 4), random.choice(("abc", "abb", "abcd"))
    cuts = (0, *sorted(random.sample((1, 2, 3), random.randint(1, 2))), 4)
    stages = tuple(Stage(f"w{i}", *ends) for i, ends in enumerate(pairwise(cuts)))
    workers = tuple(device(i, rig, 0, SPEED).spec for i, rig in enumerate(rigs))
    owner = {b: workers[i].rig for i, s in enumerate(stages) for b in s.blocks}
    at = [random.choice([w.name for w in workers if w.rig != owner[b]]) for b in range(4)]
    plan = Plan(1, model, workers, (Route(stages),), standbys=tuple(Standby(w, b, b + 1) for b, w in enumerate(at)), context=512)
    extras = (0, model.sizes.head, Prices(model.sizes, 1, 512).whole, 2 * Prices(model.sizes, 1, 512).whole)
    memory = {w.name: budget_of(plan, w.name).total_bytes + random.choice(extras) for w in workers}
    return replace(plan, workers=tuple(replace(w, memory_bytes=memory[w.name]) for w in workers))


def test_no_other_place_of_the_copies_lets_more_workers_be_lost() -> None:
    seen = set()
    for seed in range(15):
        plan = stood_by_anyhow(Random(seed))
        made = gathered(plan, plan.workers)
        lost, most = sum(goes_on(made, s.worker) for s in plan.routes[0].stages), most_complete(plan)
        assert lost == most, f"seed {seed}: {lost} of {most} with {plan.routes} {made.standbys}"
        seen.add(most)
    assert seen == {1, 2, 3}


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
