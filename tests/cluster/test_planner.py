"""The planner's promises, on random swarms and on those that people have."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.planner import Hardware, Load, Measured, Prices, Speed, make_plan, needed_bytes
from cluster.planner.budget import budget_of
from swarm.config import ModelConfig
from swarm.errors import DoesNotFit, UsageError
from swarm.plan import Model, Plan, WorkerSpec

MIB, GIB = 2**20, 2**30


def config(blocks: int = 8, experts: int = 8, hidden: int = 256, ffn: int = 256) -> ModelConfig:
    return ModelConfig(
        "MixtralForCausalLM", hidden, ffn, blocks, 8, 2, 32, experts, 2, 3072, 4096, 1e-5, 1e6, False, "bf16", 1, (2,)
    )


def model(**shape: int) -> Model:
    return Model("nano", "nano", "0" * 16, "bf16", config(**shape))


MIXTRAL = Model(
    "mixtral",
    "mistralai/Mixtral-8x7B-v0.1",
    "1" * 16,
    "bf16",
    ModelConfig("MixtralForCausalLM", 4096, 14336, 32, 32, 8, 128, 8, 2, 32000, 32768, 1e-5, 1e6, False, "bf16", 1, (2,)),
)


def device(name: str, memory: float, rig: str = "a", kind: str = "cpu") -> WorkerSpec:
    return WorkerSpec(name, rig, kind, f"127.0.0.1:{7700 + int(name[1:])}", int(memory))


def devices(*memory: float, rigs: str = "") -> list[WorkerSpec]:
    return [device(f"w{i}", m, rigs[i] if rigs else "a") for i, m in enumerate(memory)]


def made(ask: Model, offered: Sequence[WorkerSpec], load: Load, epoch: int, previous: Plan | None = None) -> Plan:
    """A Plan for Devices that are all as fast as a desktop's CPU."""
    speed = Speed.of(50e9, 1e12, 20e-6, 2)
    return make_plan(ask, Hardware(tuple(Measured(w, speed) for w in offered)), load, epoch, previous)


def check(plan: Plan) -> None:
    """Every invariant, and that budgets are what the one accounting says and no worker is without work."""
    plan.check()
    assert Plan.from_json(plan.to_json()) == plan
    shape = plan.model.config
    for block in range(shape.num_blocks):
        held = {e for w in plan.workers for e in plan.local_experts(w.name, block)}
        assert held == set(range(shape.num_experts))
    for worker in plan.workers:
        budget = budget_of(plan, worker.name)
        assert (worker.weights_bytes, worker.kv_bytes, worker.workspace_bytes) == (
            budget.weights_bytes,
            budget.kv_bytes,
            budget.workspace_bytes,
        )
        assert plan.route_of(worker.name) is not None or plan.shards_of(worker.name)


swarms = st.lists(st.tuples(st.integers(0, 120), st.sampled_from("abcd")), min_size=1, max_size=6)
shapes = st.fixed_dictionaries({"blocks": st.integers(1, 14), "experts": st.sampled_from([2, 4, 8, 16])})
loads = st.builds(Load, sessions=st.integers(1, 6), context=st.sampled_from([100, 2048, 8192]), spread=st.booleans())


@settings(max_examples=5, deadline=None)
@given(swarms, shapes, loads)
def test_every_plan_holds_its_invariants_and_a_refusal_states_true_sums(
    swarm: list[tuple[int, str]], shape: dict[str, int], load: Load
) -> None:
    ask = model(**shape)
    offered = [device(f"w{i}", m * MIB, rig) for i, (m, rig) in enumerate(swarm)]
    prices = Prices.of(ask, load)
    unused = prices.fixed(True, True) + prices.core + prices.expert
    try:
        plan = made(ask, offered, load, 3)
    except DoesNotFit as error:
        assert error.available_bytes == sum(w.memory_bytes for w in offered)
        assert error.needed_bytes > error.available_bytes
        assert error.needed_bytes >= needed_bytes(ask, load)
        assert sum(max(0, w.memory_bytes - unused) for w in offered) < shape["blocks"] * prices.whole
        return
    check(plan)
    assert plan.epoch == 3
    assert made(ask, offered[::-1], load, 3) == plan
    assert sum(w.planned_bytes for w in plan.workers) >= needed_bytes(ask, load)


def counts(plan: Plan) -> list[int]:
    return [len(s.blocks) for s in plan.routes[0].stages]


def split(plan: Plan) -> set[int]:
    return {s.block for s in plan.shards}


def room(ask: Model, load: Load, blocks: float, first: bool = True, last: bool = True) -> int:
    """Memory of a Device for that many whole Blocks beside its fixed costs."""
    prices = Prices.of(ask, load)
    return prices.fixed(first, last) + int(blocks * prices.whole)


def test_one_stream_is_served_by_one_device_and_the_other_is_named_with_what_it_would_cost() -> None:
    load = Load(objective="latency")
    plan = made(model(), [device("w0", 100 * MIB, "a"), device("w1", 90 * MIB, "b")], load, 1)
    check(plan)
    assert len(plan.workers) == 1
    assert any(re.fullmatch(r"w[01] not used: it would (cost [\d.]+ tok/s|bring nothing)", note) for note in plan.notes)


def test_spread_uses_every_device() -> None:
    load = Load(spread=True)
    plan = made(model(), devices(*(room(model(), load, n) for n in (8, 4, 4))), load, 1)
    check(plan)
    assert len(plan.workers) == 3


def test_many_sessions_get_two_routes_where_there_is_memory_for_two() -> None:
    load = Load(objective="throughput")
    plan = made(model(), devices(GIB, GIB, rigs="ab"), load, 1)
    check(plan)
    assert [[len(s.blocks) for s in r.stages] for r in plan.routes] == [[8], [8]]


def test_standby_copies_are_on_another_rig_and_without_one_it_is_refused() -> None:
    load = Load(standby=True)
    plan = made(model(), devices(GIB, GIB, rigs="ab"), load, 1)
    plan.check()
    assert sum(len(s.blocks) for s in plan.standbys) == 8
    with pytest.raises(DoesNotFit, match="a copy of every block on another rig"):
        made(model(), devices(GIB, GIB, rigs="aa"), load, 1)


def test_eight_equal_cards_are_planned_in_seconds() -> None:
    equal = [device(f"w{i}", 23.3 * GIB, "abcd"[i % 4]) for i in range(8)]
    start = time.process_time()
    check(made(MIXTRAL, equal, Load(), 1))
    assert time.process_time() - start < 20


def test_three_devices_of_one_and_a_half_blocks_hold_four_blocks_with_shards() -> None:
    ask, load = model(blocks=4, ffn=1024), Load(1, 256)
    plan = made(ask, devices(*[room(ask, load, 1.5)] * 3), load, 1)
    check(plan)
    assert plan.shards
    assert sum(counts(plan)) == 4
    assert any("round trip" in note for note in plan.notes)


def test_a_device_too_small_for_a_stage_holds_shards_only() -> None:
    ask = model(blocks=2, experts=8)
    load = Load(6, 8192)
    prices = Prices.of(ask, load)
    big = room(ask, load, 2) - 3 * prices.expert
    small = prices.helper + 4 * prices.expert
    assert small < prices.fixed(False, False) + prices.core
    plan = made(ask, devices(big, small), load, 1)
    check(plan)
    assert plan.stage_of("w1") is None
    assert {s.worker for s in plan.shards} == {"w1"}
    assert sum(len(s.experts) for s in plan.shards) == 3
    assert plan.worker("w1").kv_bytes == 0


def test_spread_gives_experts_to_devices_that_get_no_stage() -> None:
    ask, load = model(blocks=2), Load(spread=True)
    plan = made(ask, devices(*[100 * MIB] * 4), load, 1)
    check(plan)
    assert len(plan.workers) == 4


def test_a_context_beyond_the_model_is_capped_and_the_plan_says_so() -> None:
    plan = made(model(), devices(GIB), Load(2, 8192), 1)
    assert (plan.context, plan.sessions) == (4096, 2)
    assert plan.kv_pages == 2 * 4096 // plan.page_positions
    assert any("capped" in note for note in plan.notes)
    assert plan.workers[0].kv_bytes == 8 * 2 * 2 * 32 * 2 * 2 * 4096


def test_one_byte_too_little_is_refused_with_the_sum_and_the_exact_size_is_enough() -> None:
    needed = needed_bytes(model(), Load())
    plan = made(model(), devices(needed), Load(), 1)
    check(plan)
    assert plan.workers[0].planned_bytes == needed
    with pytest.raises(DoesNotFit) as refused:
        made(model(), devices(needed - 1), Load(), 1)
    assert (refused.value.needed_bytes, refused.value.available_bytes) == (needed, needed - 1)
    assert "nano" in str(refused.value)


def test_a_swarm_without_devices_is_told_what_the_model_needs() -> None:
    with pytest.raises(DoesNotFit) as refused:
        made(model(), [], Load(), 1)
    assert (refused.value.needed_bytes, refused.value.available_bytes) == (needed_bytes(model(), Load()), 0)


def test_a_device_with_no_memory_does_no_harm() -> None:
    for spread in (False, True):
        plan = made(model(), devices(0, GIB, 0), Load(spread=spread), 1)
        check(plan)
        assert [w.name for w in plan.workers] == ["w1"]
        assert "w0 not used: too small for a workspace and one expert" in plan.notes


@pytest.mark.parametrize("load", [(0, 100), (4, 0), (-1, 1)])
def test_a_load_of_nothing_is_a_usage_error(load: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        Load(*load)


def test_mixtral_in_bf16_fits_six_cards_and_three_are_told_what_it_needs() -> None:
    cards = [device(f"w{i}", 23.3 * GIB, rig, f"cuda:{i % 2}") for i, rig in enumerate("aabbcc")]
    plan = made(MIXTRAL, cards, Load(), 1)
    check(plan)
    assert sum(counts(plan)) == 32
    with pytest.raises(DoesNotFit) as refused:
        made(MIXTRAL, cards[:3], Load(), 1)
    assert refused.value.needed_bytes > 90 * GIB


def test_a_restarted_worker_keeps_its_blocks_at_its_new_address() -> None:
    load = Load(spread=True)
    swarm = devices(60 * MIB, 60 * MIB)
    before = made(model(), swarm, load, 1)
    moved = [swarm[0], replace(swarm[1], address="10.0.0.9:7701")]
    after = made(model(), moved, load, 2, before)
    assert after.routes == before.routes
    assert after.worker("w1").address == "10.0.0.9:7701"


def test_a_joined_device_is_used_where_it_ends_round_trips_or_where_all_are_wanted() -> None:
    ask, load = model(blocks=4, ffn=1024), Load(1, 256)
    tight = devices(*[room(ask, load, 1.5)] * 3)
    before = made(ask, tight, load, 1)
    assert before.shards
    joined = [*tight, device("w3", room(ask, load, 4), "b")]
    after = made(ask, joined, load, 2, before)
    check(after)
    assert not after.shards
    spread = Load(1, 256, spread=True)
    roomy = devices(*[room(ask, load, 5)] * 2)
    wide = made(ask, [*roomy, device("w2", room(ask, load, 5), "b")], spread, 2, made(ask, roomy, spread, 1))
    assert len(wide.workers) == 3


def test_a_lost_device_and_a_larger_load_are_planned_anew_within_memory() -> None:
    load = Load(spread=True)
    swarm = devices(70 * MIB, 70 * MIB, 70 * MIB, rigs="abc")
    before = made(model(), swarm, load, 1)
    after = made(model(), swarm[1:], load, 2, before)
    check(after)
    assert "w0" not in {w.name for w in after.workers}
    check(made(model(), swarm, Load(8, 8192, spread=True), 3, before))


def test_another_model_is_planned_from_nothing() -> None:
    before = made(model(blocks=4), devices(60 * MIB, 60 * MIB), Load(spread=True), 1)
    other = replace(model(blocks=6), model_id="9" * 16)
    after = made(other, devices(90 * MIB, 90 * MIB), Load(spread=True), 2, before)
    check(after)


@settings(max_examples=5, deadline=None)
@given(swarms, swarms, loads)
def test_whatever_was_before_the_new_plan_holds_its_invariants(
    old: list[tuple[int, str]], new: list[tuple[int, str]], load: Load
) -> None:
    ask = model()
    try:
        before = made(ask, [device(f"w{i}", m * MIB, rig) for i, (m, rig) in enumerate(old)], load, 1)
        after = made(ask, [device(f"w{i}", m * MIB, rig) for i, (m, rig) in enumerate(new)], load, 2, before)
    except DoesNotFit:
        return
    check(after)


def fits_somehow(ask: Model, offered: list[WorkerSpec], load: Load) -> bool:
    """By trying everything: each order of Devices with Stages, each count of Blocks, and experts wherever they have room."""
    prices = Prices.of(ask, load)
    blocks, experts = ask.config.num_blocks, ask.config.num_experts

    def room_for_experts(worker: WorkerSpec, stage: range) -> int:
        return (worker.memory_bytes - prices.budget(stage, len(stage) * experts, 0).total_bytes) // prices.expert

    for size in range(1, min(len(offered), blocks) + 1):
        for stages in permutations(offered, size):
            helping = sum(max(0, room_for_experts(w, range(0))) for w in offered if w not in stages)
            for cuts in combinations(range(1, blocks), size - 1):
                ranges = [range(a, b) for a, b in pairwise((0, *cuts, blocks))]
                rooms = [room_for_experts(w, r) for w, r in zip(stages, ranges, strict=True)]
                if min(rooms) >= 0 and sum(rooms) + helping >= blocks * experts:
                    return True
    return False


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.02, 1), min_size=2, max_size=4),
    st.floats(-0.1, 1.5),
    st.fixed_dictionaries({"blocks": st.integers(1, 6), "experts": st.sampled_from([1, 2, 8]), "ffn": st.sampled_from([64, 256])}),
    st.builds(Load, sessions=st.integers(1, 4), context=st.sampled_from([100, 4096]), spread=st.booleans()),
)
def test_what_can_be_placed_at_all_is_never_refused(shares: list[float], slack: float, shape: dict[str, int], load: Load) -> None:
    ask = model(**shape)
    ask = replace(ask, config=replace(ask.config, top_k=min(2, shape["experts"])))
    prices = Prices.of(ask, load)
    total = needed_bytes(ask, load) + slack * (len(shares) - 1) * prices.fixed(False, False)
    offered = devices(*(total * share / sum(shares) for share in shares))
    possible = fits_somehow(ask, offered, load)
    try:
        plan = made(ask, offered, load, 1)
    except DoesNotFit as refused:
        assert not possible
        more = refused.needed_bytes - refused.available_bytes
        larger = [[replace(v, memory_bytes=v.memory_bytes + more * (v is w)) for v in offered] for w in offered]
        assert refused.needed_bytes == needed_bytes(ask, load) or any(fits_somehow(ask, swarm, load) for swarm in larger)
        return
    check(plan)
    assert possible


def test_devices_that_hardly_hold_the_model_get_a_plan() -> None:
    plan = made(model(), devices(23120032, 38711228, 35896809, 12575102), Load(4, 4096), 1)
    check(plan)
    assert sorted(s.worker for s in plan.routes[0].stages) == ["w1", "w2"]


def test_devices_that_have_the_sum_but_no_layout_are_told_so() -> None:
    load = Load(1, 256)
    offered = devices(*[needed_bytes(model(), load) / 4 + MIB] * 4)
    with pytest.raises(DoesNotFit, match=r"on one device, but split over these 4 .* needs") as refused:
        made(model(), offered, load, 1)
    assert refused.value.available_bytes >= needed_bytes(model(), load)
    assert refused.value.needed_bytes > refused.value.available_bytes


def test_many_devices_are_refused_or_packed_in_moderate_time() -> None:
    load = Load(1, 2048)
    each = needed_bytes(MIXTRAL, load) / 48
    for surplus in (0.2, 1.0):
        cards = [device(f"w{i}", each + surplus * Prices.of(MIXTRAL, load).helper, rig="abcd"[i % 4]) for i in range(48)]
        start = time.process_time()
        with suppress(DoesNotFit):
            check(made(MIXTRAL, cards, load, 1))
        assert time.process_time() - start < 5
