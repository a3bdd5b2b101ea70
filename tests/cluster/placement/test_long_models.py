"""Models of 32 Blocks with experts elsewhere: near the bound, and never worse than what is in force."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.home_swarms import home_swarm
from cluster.planner import make_plan
from cluster.planner.in_force import choice_in_force
from cluster.planner.make import decide
from cluster.planner.predict import objective_s
from swarm.plan_check import OBJECTIVES

CLOSE = 1.01
"""Times the bound."""


@pytest.mark.parametrize("seed", [0, 15, 19])
def test_a_home_with_experts_elsewhere_is_planned_within_a_hundredth_of_the_bound(seed: int) -> None:
    home = home_swarm(Random(seed))
    load = home.for_objective(OBJECTIVES[seed % 3])
    choice = decide(home.model, home.hardware, load)
    assert choice and any(kind.away for route in choice.routes for stage in route for kind, _ in stage.kinds)
    plan = make_plan(home.model, home.hardware, load, 1)
    assert plan.predicted
    assert choice.at_least <= objective_s(plan.predicted, load) * (1 + 1e-9) <= choice.at_least * CLOSE


def test_a_search_from_the_plan_without_the_newest_device_is_never_worse_where_moving_costs_nothing() -> None:
    home = home_swarm(Random(3), 3, 8)
    load = home.for_objective("balanced")
    before = make_plan(home.model, home.hardware.without(home.hardware.devices[5].name), load, 1)
    assert before.predicted
    found = decide(home.model, home.hardware, load, choice_in_force(before, home.model, load))
    assert found and found.seconds <= objective_s(before.predicted, load) * (1 + 1e-9)


def test_what_only_a_packing_holds_is_planned_with_a_bound_and_not_refused() -> None:
    home = home_swarm(Random(0), 16, 64)
    choice = decide(home.model, home.hardware, home.load)
    assert choice and 0 < choice.at_least <= choice.seconds
