"""What measured choices change in a Plan: copies of hot experts in spare memory, and which experts are away."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.planner import make_plan
from cluster.planner.budget import Load, Prices, budget_of
from cluster.planner.chosen import ENOUGH_ROWS, group_chances
from cluster.planner.copies import with_copies
from cluster.planner.costs import Away, Costs
from cluster.planner.hardware import Hardware, Link, Links, Measured, Speed
from cluster.planner.predict import predict
from cluster.planner.refine import refine
from cluster.planner.site import sites
from cluster.router_counts import router_counts
from swarm.config import ModelConfig
from swarm.plan import ExpertShard, Model, Plan, Route, Stage, Standby, WorkerSpec
from swarm.wire.v1 import worker_pb2 as pb

GIB = 2**30
MIXTRAL = ModelConfig(
    architecture="MixtralForCausalLM", hidden=4096, ffn=14336, num_blocks=2, num_heads=32, num_kv_heads=8, head_dim=128,
    num_experts=8, top_k=2, vocab=32000, max_positions=32768, norm_eps=1e-5, rope_theta=1e6, tied_head=False, dtype="bf16",
    bos_id=1, eos_ids=(2,),
)  # fmt: skip
MODEL = Model("mixtral", "mixtral", "0" * 8, "bf16", MIXTRAL)
LOAD = Load(1, 4096, objective="latency")
CARD = Speed.of(900e9, 70e12, 6e-6, 2)
RAM = Speed.of(40e9, 0.5e12, 15e-6, 2)
EVEN = [1000] * 8
SKEWED = [4000, 2000, 1000, 500, 250, 125, 60, 65]
EXPERT = Prices.of(MODEL, LOAD).expert


def device(name: str, speed: Speed, memory_bytes: int) -> Measured:
    """On the Rig before the slash."""
    return Measured(WorkerSpec(name, name.partition("/")[0], "cpu", f"{name}:1", memory_bytes), speed)


def planned(devices: list[Measured], stages: list[Stage], shards: tuple[ExpertShard, ...] = (), **rest: object) -> Plan:
    """A Plan of one Route with budgets as the planner counts them."""
    plan = Plan(
        1, MODEL, tuple(d.spec for d in devices), (Route(tuple(stages)),), shards, sessions=1, context=4096, objective="latency"
    )
    plan = replace(plan, **rest)  # type: ignore[arg-type]
    return replace(plan, workers=tuple(replace(w, **vars(budget_of(plan, w.name))) for w in plan.workers))


def two(owner: Speed, holder: Speed, spare: int = 100, where: str = "attic/b") -> tuple[Plan, Hardware]:
    """An owner with both Blocks, and another Device with room for so many experts."""
    helper = Prices.of(MODEL, LOAD).helper
    devices = [device("attic/a", owner, 40 * GIB), device(where, holder, helper + spare * EXPERT)]
    plan = planned(devices, [Stage("attic/a", 0, 2)])
    return plan, Hardware(tuple(devices))


def copied(plan: Plan) -> dict[int, set[int]]:
    return {s.block: set(s.experts) for s in plan.shards if s.copy}


def test_a_3090_over_loopback_gets_no_copy_for_the_round_trip_costs_more_than_it_saves() -> None:
    plan, hardware = two(CARD, CARD)
    assert with_copies(plan, hardware, LOAD, {0: SKEWED, 1: EVEN}) == plan


def test_ram_beside_ram_and_a_card_beside_ram_hold_copies() -> None:
    for holder in (RAM, CARD):
        plan, hardware = two(RAM, holder)
        made = with_copies(plan, hardware, LOAD, {0: SKEWED, 1: EVEN})
        made.check()
        assert set(copied(made)) == {0, 1}
        assert {s.worker for s in made.shards} == {"attic/b"}


def test_nothing_is_copied_where_too_little_was_counted() -> None:
    plan, hardware = two(RAM, RAM)
    few = [2 * ENOUGH_ROWS // 8 - 1] * 8
    for counts in ({}, {0: [0] * 8}, {0: few}, {0: [5000] + [0] * 7}):
        assert refine(plan, hardware, LOAD, counts) is plan


def test_spare_memory_goes_to_the_hottest_experts_and_is_never_exceeded() -> None:
    plan, hardware = two(RAM, RAM, spare=3)
    made = with_copies(plan, hardware, LOAD, {0: EVEN, 1: SKEWED})
    made.check()
    assert sum(map(len, copied(made).values())) == 3
    assert made.worker("attic/b").weights_bytes == 3 * EXPERT
    assert 0 in copied(made)[1]
    assert made.workers[0] == plan.workers[0]


@given(st.lists(st.integers(1, 50), min_size=2, max_size=8), st.data())
def test_chances_of_groups_are_those_of_all_sets_that_a_row_can_choose(counts: list[int], data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, len(counts)))
    groups = [data.draw(st.integers(0, 2)) for _ in counts]
    expected: dict[tuple[int, ...], float] = {}
    for chosen in combinations(range(len(counts)), top_k):
        numbers = tuple(sum(groups[e] == g for e in chosen) for g in range(3))
        expected[numbers] = expected.get(numbers, 0.0) + prod(counts[e] for e in chosen)
    total = sum(expected.values())
    by_group = [[c for c, g in zip(counts, groups, strict=True) if g == group] for group in range(3)]
    found = dict(group_chances(by_group, top_k))
    assert found == pytest.approx({numbers: weight / total for numbers, weight in expected.items()})


def test_what_copies_save_is_the_mean_over_all_pairs_of_experts() -> None:
    plan, hardware = two(RAM, RAM, spare=1)
    made = with_copies(plan, hardware, LOAD, {0: SKEWED})
    costs = Costs(Prices.of(MODEL, LOAD), hardware)
    owner, holder = hardware.devices
    each = costs.expert_s(owner, 1)
    asked = costs.asked_s(owner, Away(holder, 1), 1, 1, costs.expert_s(holder, 1))
    weights = {pair: SKEWED[pair[0]] * SKEWED[pair[1]] for pair in combinations(range(8), 2)}
    with_hottest = sum(weight for pair, weight in weights.items() if 0 in pair) / sum(weights.values())
    saved_ms = 1e3 * with_hottest * (2 * each - max(each, asked))
    assert copied(made) == {0: {0}}
    assert f"{saved_ms:.2f} ms a token less" in made.notes[-1]


def test_a_copy_on_the_same_rig_comes_before_one_across_the_network() -> None:
    helper = Prices.of(MODEL, LOAD).helper
    near, far = (device(name, RAM, helper + 100 * EXPERT) for name in ("attic/b", "desk/c"))
    devices = [device("attic/a", RAM, 40 * GIB), far, near]
    plan = planned(devices, [Stage("attic/a", 0, 2)])
    made = with_copies(plan, Hardware(tuple(devices)), LOAD, {0: EVEN})
    assert {s.worker for s in made.shards} == {"attic/b"}
    slow = Links(inside=Link(1.0, 1e9))
    assert {s.worker for s in with_copies(plan, Hardware(tuple(devices), slow), LOAD, {0: EVEN}).shards} == {"desk/c"}


def test_each_owner_can_hold_copies_for_the_other_but_none_of_its_own_stage() -> None:
    devices = [device("attic/a", RAM, 40 * GIB), device("attic/b", RAM, 40 * GIB)]
    plan = planned(devices, [Stage("attic/a", 0, 1), Stage("attic/b", 1, 2)])
    made = with_copies(plan, Hardware(tuple(devices)), LOAD, {0: SKEWED, 1: SKEWED})
    made.check()
    assert {s.block: s.worker for s in made.shards} == {0: "attic/b", 1: "attic/a"}


def test_what_a_standby_copy_holds_already_is_a_copy_that_takes_no_memory() -> None:
    helper = Prices.of(MODEL, LOAD)
    room = budget_room(helper)
    devices = [device("attic/a", RAM, 40 * GIB), device("desk/b", RAM, room)]
    plan = planned(devices, [Stage("attic/a", 0, 2)], standbys=(Standby("desk/b", 0, 2),))
    made = with_copies(plan, Hardware(tuple(devices)), LOAD, {0: EVEN})
    made.check()
    assert copied(made) and made.workers == plan.workers


def budget_room(prices: Prices) -> int:
    """Exactly a standby copy of both Blocks."""
    return prices.budget(range(0), 0, 0, 2).total_bytes


def test_a_holder_of_shards_is_asked_for_both_at_once_and_its_shards_are_not_copied() -> None:
    devices = [device("attic/a", RAM, 40 * GIB), device("attic/b", RAM, 40 * GIB)]
    plan = planned(devices, [Stage("attic/a", 0, 2)], (ExpertShard("attic/b", 0, (6, 7)),))
    made = with_copies(plan, Hardware(tuple(devices)), LOAD, {0: EVEN})
    made.check()
    assert copied(made)[0] <= {0, 1, 2, 3, 4, 5}
    assert made.remote_experts("attic/a", 0) == {6: "attic/b", 7: "attic/b"}


def test_copies_move_when_others_became_hot_and_go_when_they_no_longer_pay() -> None:
    plan, hardware = two(RAM, RAM, spare=2)
    made = refine(plan, hardware, LOAD, {0: SKEWED})
    assert copied(made) == {0: {0, 1}}
    assert copied(refine(made, hardware, LOAD, {0: SKEWED[::-1]})) == {0: {6, 7}}
    slow = replace(hardware, links=Links(inside=Link(1.0, 1e9)))
    assert replace(refine(made, slow, LOAD, {0: SKEWED}), notes=(), predicted=None) == plan


def test_copies_stay_where_others_would_save_hardly_more_or_nothing_is_known_of_their_block() -> None:
    plan, hardware = two(RAM, RAM, spare=2)
    made = refine(plan, hardware, LOAD, {0: [1000, 1010, 1005, *[500] * 5]})
    for counts in ({0: [1010, 1000, 1015, *[500] * 5]}, {}, {1: EVEN}):
        again = refine(made, hardware, LOAD, counts)
        assert (again.shards, again.workers) == (made.shards, made.workers)


def test_a_slow_holder_gets_no_copy_though_workers_would_ask_it() -> None:
    plan, hardware = two(RAM, Speed.of(15e9, 0.5e12, 15e-6, 2))
    assert with_copies(plan, hardware, LOAD, {0: SKEWED, 1: EVEN}) == plan


@pytest.mark.parametrize("away", [(), (6,), (5, 6, 7)])
def test_copies_are_priced_as_workers_spread_the_experts_of_a_row(away: tuple[int, ...]) -> None:
    pytest.importorskip("torch")
    from swarm.model.spread import spread

    devices = [device("attic/a", RAM, 40 * GIB), device("attic/b", RAM, 40 * GIB)]
    shards = (ExpertShard("attic/b", 0, away),) if away else ()
    plan = planned(devices, [Stage("attic/a", 0, 2)], shards)
    costs = Costs(Prices.of(MODEL, LOAD), Hardware(tuple(devices)))
    site = next(s for s in sites(plan, costs, LOAD, {0: EVEN}))
    copies = {0, 1, 2}
    for chosen in combinations(range(8), 4):
        rows = dict.fromkeys(chosen, 1)
        remote = {e: 1 for e in away if e in rows}
        asked = spread(rows, remote, {e: 1 for e in copies if e in rows})
        both = sum(e in copies for e in chosen)
        here = len(chosen) - len(remote) - both
        assert site.asks(here, both, [len(remote)] if away else []) == len(asked)


def test_the_owner_keeps_what_is_chosen_most_and_memory_stays_as_it_was() -> None:
    devices = [device("attic/a", CARD, 40 * GIB), device("attic/b", RAM, 40 * GIB)]
    plan = planned(devices, [Stage("attic/a", 0, 2)], (ExpertShard("attic/b", 0, (0, 1, 7)), ExpertShard("attic/b", 1, (3,))))
    made = refine(plan, Hardware(tuple(devices)), LOAD, {0: SKEWED})
    made.check()
    assert [s.experts for s in made.shards if not s.copy] == [(5, 6, 7), (3,)]


def test_experts_that_are_chosen_about_as_often_stay_where_they_are() -> None:
    devices = [device("attic/a", CARD, 40 * GIB), device("attic/b", RAM, 40 * GIB)]
    plan = planned(devices, [Stage("attic/a", 0, 2)], (ExpertShard("attic/b", 0, (0, 1)),))
    made = refine(plan, Hardware(tuple(devices)), LOAD, {0: [1100, 1200, *[1000] * 6]})
    assert [s.experts for s in made.shards if not s.copy] == [(0, 1)]


@pytest.mark.parametrize("sessions", [1, 4])
def test_even_choices_are_predicted_as_if_nothing_had_been_counted(sessions: int) -> None:
    devices = [device("attic/a", CARD, 40 * GIB), device("attic/b", RAM, 40 * GIB)]
    plan = planned(devices, [Stage("attic/a", 0, 2)], (ExpertShard("attic/b", 0, (0, 1)),), sessions=sessions)
    hardware, load = Hardware(tuple(devices)), replace(LOAD, sessions=sessions)
    even, uniform = (predict(plan, hardware, load, counts) for counts in ({0: EVEN, 1: EVEN}, {}))
    assert even.tokens_per_s == pytest.approx(uniform.tokens_per_s)
    assert even.total_tokens_per_s == pytest.approx(uniform.total_tokens_per_s)


def test_choices_that_are_skewed_towards_what_is_at_home_are_predicted_to_be_quicker_for_one_and_for_many() -> None:
    devices = [device("attic/a", CARD, 40 * GIB), device("attic/b", RAM, 40 * GIB)]
    plan = planned(devices, [Stage("attic/a", 0, 2)], (ExpertShard("attic/b", 0, (6, 7)),), sessions=4)
    hardware, load = Hardware(tuple(devices)), replace(LOAD, sessions=4)
    skewed, uniform = (predict(plan, hardware, load, counts) for counts in ({0: SKEWED}, {}))
    assert skewed.tokens_per_s > uniform.tokens_per_s
    assert skewed.total_tokens_per_s > uniform.total_tokens_per_s


def test_copies_that_are_made_because_they_save_time_are_predicted_to_save_it() -> None:
    plan, hardware = two(RAM, RAM)
    made = refine(plan, hardware, LOAD, {0: SKEWED, 1: SKEWED})
    assert any(s.copy for s in made.shards)
    assert made.predicted and made.predicted.tokens_per_s > predict(plan, hardware, LOAD, {0: SKEWED, 1: SKEWED}).tokens_per_s


@pytest.mark.parametrize("objective", ["latency", "throughput", "balanced"])
def test_a_plan_made_again_from_a_refined_one_is_the_same_so_that_nothing_moves(objective: str) -> None:
    devices = tuple(device(name, RAM, 10 * GIB) for name in ("attic/a", "attic/b", "desk/c"))
    hardware, load = Hardware(devices), Load(2, 4096, objective=objective)
    counts = {0: SKEWED, 1: EVEN}
    first = refine(make_plan(MODEL, hardware, load, 1), hardware, load, counts)
    first.check()
    again = refine(make_plan(MODEL, hardware, load, 2, first), hardware, load, counts)
    assert (again.routes, again.shards, again.workers, again.standbys) == (
        first.routes,
        first.shards,
        first.workers,
        first.standbys,
    )


def test_counts_of_a_block_that_two_routes_have_are_summed() -> None:
    first, second = (
        pb.WorkerStatus(choices=[pb.BlockChoices(block=b, counts=counts) for b, counts in each.items()])
        for each in ({3: [1, 2]}, {3: [10, 20], 1: [5, 5]})
    )
    assert router_counts([first, second]) == {1: [5, 5], 3: [11, 22]}
    assert router_counts([]) == {}


@pytest.mark.parametrize(("owner", "holder", "away"), [(CARD, RAM, (5, 6, 7)), (RAM, CARD, (0, 1, 2))])
def test_what_is_away_is_chosen_least_and_where_a_card_helps_ram_it_is_chosen_most(
    owner: Speed, holder: Speed, away: tuple[int, ...]
) -> None:
    devices = [device("attic/a", owner, 40 * GIB), device("attic/b", holder, Prices.of(MODEL, LOAD).helper + 4 * EXPERT)]
    plan = planned(devices, [Stage("attic/a", 0, 2)], (ExpertShard("attic/b", 0, (0, 3, 7)),))
    made = refine(plan, Hardware(tuple(devices)), LOAD, {0: SKEWED})
    made.check()
    assert [s.experts for s in made.shards if not s.copy] == [away]
    assert "block 0: other experts are elsewhere now" in made.notes[0]
    again = refine(replace(made, notes=()), Hardware(tuple(devices)), LOAD, {0: SKEWED})
    assert again.shards == made.shards and not any("elsewhere now" in note for note in again.notes)
