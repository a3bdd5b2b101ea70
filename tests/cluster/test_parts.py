"""What a Worker holds under two Plans, and whether both fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_worker import MIB, MODELS
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.parts import holding, parts, release_first, same_assignment
from cluster.planner import Hardware, Load, Measured, Speed, budget_of, make_plan
from swarm.plan import ExpertShard, Plan, Route, Stage, Standby, WorkerSpec

LOAD = Load(1, 64, spread=True)


def workers(*sizes: int) -> list[WorkerSpec]:
    return [WorkerSpec(f"w{n}", f"rig-{n}", "cpu", f"h:{n}", size) for n, size in enumerate(sizes)]


def hardware(*sizes: int) -> Hardware:
    return Hardware(tuple(Measured(spec, Speed.of(50e9, 1e12, 2e-5, 2)) for spec in workers(*sizes)))


def plan(model: str, *sizes: int, epoch: int = 1, previous: Plan | None = None) -> Plan:
    return make_plan(MODELS[model], hardware(*sizes), LOAD, epoch, previous)


def halves() -> Plan:
    """Blocks 0-4 on w0, 4-8 on w1."""
    made = plan("nano", 64 * MIB, 64 * MIB)
    route = Route((Stage("w0", 0, 4), Stage("w1", 4, 8)))
    return replace(made, routes=(route,), shards=(), workers=tuple(workers(64 * MIB, 64 * MIB)))


@settings(deadline=None, max_examples=30)
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
    assert holding(halves(), name, "here") == text


def test_shards_are_in_the_name_too() -> None:
    made = halves()
    shards = tuple(ExpertShard("w1", block, (0,)) for block in (0, 1, 3))
    assert holding(replace(made, shards=shards), "w1", "x") == "stage 1 · blocks 4-7 · shards of blocks 0-1, 3 · x"
    assert holding(None, "w1", "x") == "idle · x"


def test_notes_and_epoch_are_no_part_of_an_assignment() -> None:
    made = plan("nano", 64 * MIB)
    assert same_assignment(made, replace(made, epoch=9, follows=8, notes=("new",)))
    assert not same_assignment(made, replace(made, sessions=2)) and not same_assignment(None, made)
    made = replace(made, start_rows=40)
    for rows, same in {20: True, 41: True, 80: True, 19: False, 81: False}.items():
        assert same_assignment(made, replace(made, start_rows=rows)) is same, rows


def two_routes(**changed: Any) -> Plan:
    """Blocks 0-8 twice, on w0 and w1 and on w2; w3 has nothing yet."""
    made = plan("nano", 64 * MIB)
    stages = (Stage("w0", 0, 5), Stage("w1", 5, 8)), (Stage("w2", 0, 8),)
    everyone = tuple(replace(worker, memory_bytes=64 * MIB) for worker in workers(*[64 * MIB] * 4))
    return replace(made, workers=everyone, routes=tuple(Route(s) for s in stages), sessions=4, **changed)


def test_the_name_says_on_which_route_what_is_copied_and_what_is_stood_by_for() -> None:
    copies = tuple(ExpertShard("w3", block, (0, 1), 0, copy=True) for block in (0, 1))
    made = two_routes(shards=(*copies, ExpertShard("w3", 7, (3,), 0)), standbys=(Standby("w3", 4, 7), Standby("w2", 0, 8)))
    assert holding(made, "w1", "x") == "route 0 stage 1 · blocks 5-7 · x"
    assert holding(made, "w3", "x") == "shards of block 7 · copies of experts of blocks 0-1 · standby for blocks 4-6 · x"


def test_each_route_has_the_kv_of_its_share_of_the_sessions() -> None:
    one, two = plan("nano", 64 * MIB), two_routes()
    kv = sum(size for part, size in parts(replace(one, sessions=2), "w0").items() if part[0] == "kv")
    assert kv == sum(size for part, size in parts(two, "w2").items() if part[0] == "kv")
    assert {b for kind, b, _ in parts(two, "w1") if kind == "core"} == {5, 6, 7}


def test_a_copy_is_held_by_both_and_a_shard_by_one() -> None:
    made = two_routes(shards=(ExpertShard("w3", 0, (1, 2), 0, copy=True), ExpertShard("w3", 6, (3,), 0)))
    experts = {name: {p[1:] for p in parts(made, name) if p[0] == "expert"} for name in ("w0", "w1", "w2", "w3")}
    assert {(0, 1), (0, 2)} <= experts["w0"] and experts["w3"] == {(0, 1), (0, 2), (6, 3)}
    assert (6, 3) not in experts["w1"] and (6, 3) in experts["w2"]


def test_standing_by_takes_weights_and_reserves_kv_that_is_taken_only_when_it_serves() -> None:
    alone, standing = two_routes(), two_routes(standbys=(Standby("w1", 0, 3),))
    more = parts(standing, "w1").keys() - parts(alone, "w1").keys()
    assert {kind for kind, _, _ in more} == {"core", "expert"} and {b for _, b, _ in more} == {0, 1, 2}
    budget, weighs = budget_of(standing, "w1"), sum(size for part, size in parts(standing, "w1").items() if part[0] != "kv")
    assert budget.weights_bytes == weighs
    assert budget.kv_bytes == 2 * sum(size for part, size in parts(alone, "w1").items() if part[0] == "kv")


def test_a_standby_that_becomes_a_stage_has_only_its_kv_and_the_ends_to_make_room_for() -> None:
    old = two_routes(standbys=(Standby("w3", 5, 8),))
    stages = (Stage("w0", 0, 5), Stage("w3", 5, 8)), (Stage("w2", 0, 8),)
    new = replace(old, epoch=2, standbys=(), routes=tuple(Route(s) for s in stages))
    assert {kind for kind, _, _ in parts(new, "w3").keys() - parts(old, "w3").keys()} == {"kv", "head"}
    exact = sum(parts(new, "w3").values()) + new.worker("w3").workspace_bytes
    for memory, needed in ((exact, False), (exact - 1, True)):
        tight = replace(new, workers=tuple(replace(w, memory_bytes=memory) for w in new.workers))
        assert release_first([old], tight, "w3") is needed
