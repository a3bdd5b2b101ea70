"""Beside how the peers split a model: priced by the same cost model, ours is never worse, and fits wherever theirs does."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.home_swarms import HomeSwarm, home_swarm
from benchmarks.policies import POLICIES
from cluster.planner import Load, budget_of, make_plan
from cluster.planner.hardware import Hardware
from cluster.planner.predict import objective_s, predict
from swarm.plan import Model, Plan
from swarm.plan_check import OBJECTIVES

LONGER = 1 + 1e-9
"""What rounding may make of equal seconds."""


def seconds(plan: Plan, hardware: Hardware, load: Load) -> float:
    return objective_s(predict(plan, hardware, load), load)


@pytest.mark.parametrize(("seed", "objective"), list(enumerate(OBJECTIVES * 2)))
def test_ours_is_never_worse_and_fits_wherever_a_peers_does(seed: int, objective: str) -> None:
    home = home_swarm(Random(seed))
    load = home.for_objective(objective)
    theirs = {name: policy(home.model, home.hardware, load) for name, policy in POLICIES.items()}
    if not any(theirs.values()):
        return
    ours = seconds(make_plan(home.model, home.hardware, load, 1), home.hardware, load)
    for name, plan in theirs.items():
        if plan:
            assert ours <= seconds(plan, home.hardware, load) * LONGER, name


@pytest.mark.parametrize("seed", range(15))
def test_a_peers_plan_is_a_plan(seed: int) -> None:
    home: HomeSwarm = home_swarm(Random(seed))
    for policy in POLICIES.values():
        plan = policy(home.model, home.hardware, home.load)
        if plan:
            plan.check()
            assert all(w.planned_bytes == budget_of(plan, w.name).total_bytes for w in plan.workers)


def test_each_policy_splits_by_what_it_says() -> None:
    fitting = [home for seed in range(30) if all(p(*_ask(home := home_swarm(Random(seed)))) for p in POLICIES.values())]
    assert len(fitting) >= 3
    for home in fitting:
        plans = {name: policy(*_ask(home)) for name, policy in POLICIES.items()}
        counts = {name: [len(s.blocks) for s in plan.routes[0].stages] for name, plan in plans.items() if plan}
        assert max(counts["even split"]) - min(counts["even split"]) <= 1
        assert len(counts["fewest nodes"]) == min(len(c) for c in counts.values())
        devices = {d.name: d for d in home.hardware.devices}
        memory = plans["proportional to memory"]
        if memory and len(counts["proportional to memory"]) > 1:
            stages = sorted(memory.routes[0].stages, key=lambda s: devices[s.worker].spec.memory_bytes)
            assert len(stages[0].blocks) <= len(stages[-1].blocks)


def _ask(home: HomeSwarm) -> tuple[Model, Hardware, Load]:
    return home.model, home.hardware, home.load
