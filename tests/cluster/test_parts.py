"""What a Worker holds under two Plans, and whether both fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_worker import MIB, MODELS
from hypothesis import given
from hypothesis import strategies as st

from cluster.parts import holding, parts, release_first, same_assignment
from cluster.planner import Load, budget_of, make_plan
from swarm.plan import ExpertShard, Plan, WorkerSpec

LOAD = Load(1, 64, spread=True)


def workers(*sizes: int) -> list[WorkerSpec]:
    return [WorkerSpec(f"w{n}", f"rig-{n}", "cpu", f"h:{n}", size) for n, size in enumerate(sizes)]


def plan(model: str, *sizes: int, epoch: int = 1, previous: Plan | None = None) -> Plan:
    return make_plan(MODELS[model], workers(*sizes), LOAD, epoch, previous)


@given(st.lists(st.integers(6 * MIB, 12 * MIB), min_size=2, max_size=5))
def test_the_parts_of_a_worker_weigh_what_the_plan_budgets(sizes: list[int]) -> None:
    made = plan("nano", *sizes)
    for worker in made.workers:
        budget = budget_of(made, worker.name)
        assert sum(parts(made, worker.name).values()) == budget.weights_bytes + budget.kv_bytes


def test_the_same_plan_again_never_releases_first() -> None:
    old = plan("nano", 8 * MIB, 8 * MIB)
    tight = replace(old, epoch=2, workers=tuple(replace(w, memory_bytes=w.planned_bytes) for w in old.workers))
    assert not any(release_first([old], tight, w.name) for w in tight.workers)


def test_another_model_is_loaded_beside_the_old_where_both_fit_and_only_there() -> None:
    old, new = plan("nano", 64 * MIB), plan("other", 64 * MIB, epoch=2)
    both = sum(parts(old, "w0").values()) + sum(parts(new, "w0").values())
    both += max(old.workers[0].workspace_bytes, new.workers[0].workspace_bytes)
    exact = replace(new, workers=(replace(new.workers[0], memory_bytes=both),))
    short = replace(new, workers=(replace(new.workers[0], memory_bytes=both - 1),))
    assert not release_first([old], exact, "w0") and release_first([old], short, "w0")


def test_a_worker_that_held_nothing_releases_nothing() -> None:
    assert not release_first([], plan("nano", 8 * MIB), "w0")
    assert not release_first([plan("nano", 8 * MIB)], plan("nano", 8 * MIB, 8 * MIB, epoch=2), "w1")


def test_what_is_left_of_a_third_plan_counts_and_what_nobody_knows_leaves_no_room() -> None:
    old, failed, new = plan("nano", 64 * MIB), plan("deep", 64 * MIB, epoch=2), plan("other", 64 * MIB, epoch=3)
    both = sum(parts(old, "w0").values()) + sum(parts(new, "w0").values())
    both += max(old.workers[0].workspace_bytes, new.workers[0].workspace_bytes)
    exact = replace(new, workers=(replace(new.workers[0], memory_bytes=both),))
    assert not release_first([old, old], exact, "w0")
    assert release_first([old, failed], exact, "w0") and release_first([old, None], exact, "w0")


@pytest.mark.parametrize(("name", "text"), [("w0", "stage 0 · blocks 0-3 · here"), ("w9", "idle · here")])
def test_an_agent_is_named_by_what_its_worker_holds(name: str, text: str) -> None:
    assert holding(plan("nano", 64 * MIB, 64 * MIB), name, "here") == text


def test_shards_are_in_the_name_too() -> None:
    made = plan("nano", 64 * MIB, 64 * MIB)
    shards = tuple(ExpertShard("w1", block, (0,)) for block in (0, 1, 3))
    assert holding(replace(made, shards=shards), "w1", "x") == "stage 1 · blocks 4-7 · shards of blocks 0-1, 3 · x"
    assert holding(None, "w1", "x") == "idle · x"


def test_notes_and_epoch_are_no_part_of_an_assignment() -> None:
    made = plan("nano", 64 * MIB)
    assert same_assignment(made, replace(made, epoch=9, notes=("new",)))
    assert not same_assignment(made, replace(made, sessions=2)) and not same_assignment(None, made)
