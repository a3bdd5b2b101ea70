"""No regret: of a small swarm, `make_plan` finds a Plan as good as the best of all, and refuses exactly where there is none.

`pytest tests/cluster/placement --regret-swarms 20000` looks at more of them.
"""

from __future__ import annotations

from random import Random

import pytest
from brute_force import brute_force
from hypothesis import given, settings
from hypothesis import strategies as st
from swarms import OBJECTIVES, Size, Swarm, swarm

from cluster.planner import budget_of, make_plan
from cluster.planner.predict import objective_s, predict
from swarm.errors import DoesNotFit
from swarm.plan import Plan

SMALL, MIDDLE, LARGE = Size(2, 5, 4, 3), Size(3, 4, 4, 3), Size(4, 5, 4, 3)
PARTS = 20
"""A seeded loop is cut into so many tests, so that one that fails is soon found."""


def planned(asked: Swarm) -> Plan | None:
    try:
        return make_plan(asked.model, asked.hardware, asked.load, 1)
    except DoesNotFit:
        return None


def hold_against_brute_force(asked: Swarm, what: object) -> None:
    best, plan = brute_force(asked.model, asked.hardware, asked.load), planned(asked)
    if best is None or plan is None:
        assert plan is None, f"{what}: a plan where brute force finds none"
        assert best is None, f"{what}: refused, and brute force has {best and best[1].routes}"
        return
    plan.check()
    assert all(budget_of(plan, w.name).total_bytes <= w.memory_bytes for w in plan.workers)
    seconds = objective_s(predict(plan, asked.hardware, asked.load), asked.load)
    assert seconds == pytest.approx(best[0], rel=1e-9, abs=0), f"{what}: {seconds / best[0] - 1:+.2e}, best is {best[1].routes}"


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_plan_is_better_than_the_one_that_is_made(random: Random) -> None:
    hold_against_brute_force(swarm(random, MIDDLE), "drawn by hypothesis")


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(("size", "share"), [(SMALL, 0.5), (MIDDLE, 0.4), (LARGE, 0.1)], ids=["two", "three", "four"])
def test_no_plan_is_better_on_many_swarms(size: Size, share: float, part: int, regret_swarms: int) -> None:
    count = int(regret_swarms * share / PARTS)
    for seed in range(part * count, (part + 1) * count):
        hold_against_brute_force(swarm(Random(seed), size), f"{size} seed {seed}")


def test_the_swarms_that_are_tried_need_everything_that_a_plan_can_have() -> None:
    wanted = {f"{objective} {shards}" for objective in OBJECTIVES for shards in (True, False)}
    wanted |= {"none fits", "2 routes", "2 stages", "3 stages", "standby", "shards and two routes"}
    for seed in range(400):
        if not wanted:
            break
        asked = swarm(Random(seed), MIDDLE)
        best = brute_force(asked.model, asked.hardware, asked.load)
        if best is None:
            wanted -= {"none fits"}
            continue
        plan = best[1]
        wanted -= {
            f"{asked.load.objective} {bool(plan.shards)}",
            f"{len(plan.routes)} routes",
            f"{len(plan.routes[0].stages)} stages",
        }
        wanted -= {"standby"} if plan.standbys else set()
        wanted -= {"shards and two routes"} if plan.shards and len(plan.routes) == 2 else set()
    assert not wanted
