"""Laying a Choice out, and moving only what pays back: bytes counted, and compared with every other way on small ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import inf
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from large_swarms import card, mixtral

from cluster.planner import Load, Prices
from cluster.planner.budget import budget_of
from cluster.planner.choice import Choice, Kind, StageChoice
from cluster.planner.hardware import Hardware
from cluster.planner.held import Held
from cluster.planner.lay_out import lay_out, loaded_bytes
from cluster.planner.moving import moved_bytes, moving_s, settle
from cluster.planner.predict import objective_s
from swarm.config import Sizes
from swarm.plan import Plan

SMALL = mixtral(6, hidden=256, ffn=256)
LOAD = Load(sessions=4, context=4096)


def whole(*stages: tuple[str, int], in_flight: int = 4) -> Choice:
    """A Route of whole Blocks."""
    return Choice((tuple(StageChoice(worker, ((Kind(), n),)) for worker, n in stages),), in_flight, 0.0)


def ranges(plan: Plan) -> list[tuple[str, int, int]]:
    return [(s.worker, s.first, s.end) for s in plan.routes[0].stages]


def three(*names: str) -> Hardware:
    """Equal cards that hold 15 Blocks of Mixtral, each on a Rig of its own."""
    return Hardware(tuple(card(name, f"rig-{name}", 48) for name in names))


@st.composite
def kinds(draw: st.DrawFn) -> tuple[tuple[Kind, int], ...]:
    """Kinds of Blocks of an owner, with experts on c and d."""
    found: list[tuple[Kind, int]] = []
    for _ in range(draw(st.integers(1, 2))):
        on_c = draw(st.integers(0, 4))
        on_d = draw(st.integers(0, 8 - on_c))
        away = tuple((name, n) for name, n in (("c", on_c), ("d", on_d)) if n)
        standby = draw(st.sampled_from(["", "e"]))
        found.append((Kind(away, standby), draw(st.integers(1, 2))))
    return tuple(found)


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    """Six Blocks on a and b, some of their experts on c and d, some copies on e."""
    first = draw(kinds())
    count = sum(n for _, n in first)
    second = draw(kinds())
    rest = [(kind, 1) for kind, n in second for _ in range(n)]
    rest = (rest * 6)[: 6 - count]
    return Choice(((StageChoice("a", first), StageChoice("b", tuple(rest))),), draw(st.integers(1, 4)), 0.0)


HOME = Hardware(tuple(card(name, f"rig-{name}", 2) for name in "abcde"))


@settings(max_examples=60)
@given(choices(), choices())
def test_a_laid_out_choice_keeps_every_invariant_and_its_numbers(before: Choice, choice: Choice) -> None:
    previous = lay_out(before, SMALL, HOME, LOAD, 1, None)
    plan = lay_out(choice, SMALL, HOME, LOAD, 2, previous)
    plan.check()
    assert Plan.from_json(plan.to_json()) == plan
    assert [w.name for w in plan.workers[:2]] == ["a", "b"] and [w.name for w in plan.workers[2:]] == sorted(
        w.name for w in plan.workers[2:]
    )
    for worker in plan.workers:
        budget = budget_of(plan, worker.name)
        assert (worker.weights_bytes, worker.kv_bytes) == (budget.weights_bytes, budget.kv_bytes)
        assert worker.planned_bytes <= worker.memory_bytes
    for stage, wanted in zip(plan.routes[0].stages, choice.routes[0], strict=True):
        got = sorted(sorted((s.worker, len(s.experts)) for s in plan.shards if s.block == b) for b in stage.blocks)
        assert got == sorted(sorted(kind.away) for kind, n in wanted.kinds for _ in range(n))
        stood = sum(len(set(s.blocks) & set(stage.blocks)) for s in plan.standbys)
        assert stood == sum(n for kind, n in wanted.kinds if kind.standby)


@settings(max_examples=40)
@given(choices(), choices())
def test_no_other_order_of_the_kinds_would_load_less(before: Choice, choice: Choice) -> None:
    previous = lay_out(before, SMALL, HOME, LOAD, 1, None)
    held = Held.by(previous, SMALL)
    best = loaded_bytes(lay_out(choice, SMALL, HOME, LOAD, 2, previous), held)
    each = [[kind for kind, n in stage.kinds for _ in range(n)] for stage in choice.routes[0]]
    for order in {tuple(p) for p in permutations(each[0])}:
        other = replace(choice, routes=((StageChoice("a", tuple((k, 1) for k in order)), choice.routes[0][1]),))
        fresh = lay_out(other, SMALL, HOME, LOAD, 2, None)
        assert best <= loaded_bytes(fresh, held)


def test_a_plan_laid_out_beside_itself_loads_nothing() -> None:
    choice = Choice(((StageChoice("a", ((Kind((("c", 3),)), 2), (Kind(), 1))), StageChoice("b", ((Kind((), "e"), 3),))),), 2, 0.0)
    plan = lay_out(choice, SMALL, HOME, LOAD, 1, None)
    turned = replace(choice, routes=((replace(choice.routes[0][0], kinds=choice.routes[0][0].kinds[::-1]), choice.routes[0][1]),))
    assert not sum(moved_bytes(plan, lay_out(turned, SMALL, HOME, LOAD, 2, plan)).values())


def test_identical_devices_of_a_rig_keep_what_they_have() -> None:
    twins = Hardware(tuple(card(name, "rig", 2) for name in "abcd"))
    plan = lay_out(whole(("a", 2), ("b", 2), ("c", 2)), SMALL, twins, LOAD, 1, None)
    swapped = lay_out(whole(("d", 2), ("c", 2), ("a", 2)), SMALL, twins, LOAD, 2, plan)
    assert ranges(swapped) == ranges(plan)


def test_a_rig_that_joins_loads_its_blocks_and_nobody_else_more_than_a_boundary() -> None:
    model, sizes = mixtral(), Sizes(mixtral().config, "bf16")
    plan = lay_out(whole(("a", 11), ("b", 11), ("c", 10)), model, three("a", "b", "c"), LOAD, 1, None)
    four = three("a", "b", "c", "d")
    fresh = lay_out(whole(("a", 8), ("b", 8), ("c", 8), ("d", 8)), model, four, LOAD, 2, plan)
    settled = settle(plan, fresh, model, four, LOAD, 2, inf)
    settled.check()
    moved = moved_bytes(plan, settled)
    assert settled.predicted and fresh.predicted
    assert objective_s(settled.predicted, LOAD) <= objective_s(fresh.predicted, LOAD) * (1 + 1e-9)
    assert 8 * sizes.block <= sum(moved.values()) < sum(moved_bytes(plan, fresh).values())
    assert "moves" in settled.notes[-1] and "rig-d/cuda:0" in settled.notes[-1]


def test_nothing_moves_for_a_gain_that_does_not_pay() -> None:
    model = mixtral()
    plan = lay_out(whole(("a", 11), ("b", 11), ("c", 10)), model, three("a", "b", "c"), LOAD, 1, None)
    four = three("a", "b", "c", "d")
    fresh = lay_out(whole(("a", 8), ("b", 8), ("c", 8), ("d", 8)), model, four, LOAD, 2, plan)
    settled = settle(plan, fresh, model, four, LOAD, 2, 1.0)
    assert ranges(settled) == ranges(plan) and not any(moved_bytes(plan, settled).values())
    assert settled.epoch == 2 and settled.notes[-1].startswith("stays as it is")


def test_a_rig_that_leaves_costs_its_blocks_and_what_balance_pays_back() -> None:
    model, sizes = mixtral(), Sizes(mixtral().config, "bf16")
    four = three("a", "b", "c", "d")
    plan = lay_out(whole(("a", 8), ("b", 8), ("c", 8), ("d", 8)), model, four, LOAD, 1, None)
    left = four.without("c")
    fresh = lay_out(whole(("b", 11), ("a", 11), ("d", 10)), model, left, LOAD, 2, plan)
    for horizon_s, blocks in ((5.0, 8), (60.0, 10)):
        settled = settle(plan, fresh, model, left, LOAD, 2, horizon_s)
        settled.check()
        assert sum(moved_bytes(plan, settled).values()) == blocks * sizes.block < sum(moved_bytes(plan, fresh).values())
        assert "c" not in {w.name for w in settled.workers}


def test_the_moving_time_is_that_of_the_slowest_loader() -> None:
    model = mixtral(6, 256, 256)
    hardware = Hardware((card("a", "r", 2, fetch_bytes_per_s=1e6), card("b", "s", 2, fetch_bytes_per_s=1e7)))
    plan = lay_out(whole(("a", 2), ("b", 4)), model, hardware, LOAD, 1, None)
    moved = moved_bytes(None, plan)
    assert moving_s(None, plan, hardware) == max(moved["a"] / 1e6, moved["b"] / 1e7)
    sizes = Sizes(model.config, "bf16")
    assert sum(moved.values()) == 6 * sizes.block + sizes.embedding + sizes.head


def test_another_dtype_keeps_nothing() -> None:
    hardware = Hardware((card("a", "r", 2), card("b", "s", 2)))
    plan = lay_out(whole(("a", 2), ("b", 4)), SMALL, hardware, LOAD, 1, None)
    other = lay_out(whole(("a", 2), ("b", 4)), replace(SMALL, dtype="fp16"), hardware, LOAD, 2, plan)
    assert moved_bytes(plan, other) == moved_bytes(None, other)


@settings(max_examples=15)
@given(st.randoms(use_true_random=False), st.sampled_from(["latency", "throughput", "balanced"]))
def test_settling_is_never_worth_less_than_either_plan(random: Random, objective: str) -> None:
    model, load = mixtral(12, 1024, 3584), Load(sessions=3, context=2048, objective=objective)
    names = "abcd"
    hardware = Hardware(
        tuple(card(n, f"r{random.randint(0, 2)}", 6 + i, random.choice((100, 400, 900))) for i, n in enumerate(names))
    )
    plan = lay_out(_random_route(random, model.config.num_blocks, "abc"), model, hardware, load, 1, None)
    fresh = lay_out(_random_route(random, model.config.num_blocks, names), model, hardware, load, 2, plan)
    assert Prices.of(model, load).num_blocks == 12
    for horizon_s in (inf, 3600.0, 20.0):
        settled = settle(plan, fresh, model, hardware, load, 2, horizon_s)
        settled.check()
        assert fresh.predicted
        a_second = objective_s(fresh.predicted, load) / horizon_s

        def worth(p: Plan, a_second: float = a_second) -> float:
            assert p.predicted
            return objective_s(p.predicted, load) + a_second * moving_s(plan, p, hardware)

        stayed = replace(plan, objective=objective)
        assert worth(settled) <= min(worth(fresh), worth(stayed)) * (1 + 1e-3)


def _random_route(random: Random, blocks: int, names: str) -> Choice:
    order = random.sample(names, random.randint(2, len(names)))
    cuts = [0, *sorted(random.sample(range(1, blocks), len(order) - 1)), blocks]
    return whole(*((n, b - a) for n, a, b in zip(order, cuts, cuts[1:], strict=False)), in_flight=random.randint(1, 3))
