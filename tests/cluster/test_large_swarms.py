"""Swarms beyond an exact search: what is found is a Plan, no better than its bound, and never worse than what was there."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from large_swarms import card, cards, mixtral

from cluster.planner import Load
from cluster.planner.choice import Choice
from cluster.planner.clock import Clock, around_s
from cluster.planner.hardware import Hardware, Link, Links
from cluster.planner.large import search
from cluster.planner.large_relaxed import Relaxed
from cluster.planner.lay_out import lay_out
from cluster.planner.optimum import optimum
from cluster.planner.ordered import Ordered, best_stages
from cluster.planner.predict import objective_s
from cluster.planner.tables import FIRST, LAST, Table
from swarm.plan import Model, Plan

OBJECTIVES = ("latency", "throughput", "balanced")


def laid_out(found: Choice, model: Model, hardware: Hardware, load: Load) -> Plan:
    """The Plan of a Choice, checked, and its seconds against those that it was chosen by."""
    plan = lay_out(found, model, hardware, load, 1, None)
    plan.check()
    assert plan.predicted
    assert objective_s(plan.predicted, load) == pytest.approx(found.seconds, rel=1e-9)
    return plan


@settings(max_examples=6)
@given(st.randoms(use_true_random=False), st.integers(11, 20), st.sampled_from(OBJECTIVES), st.integers(1, 6))
def test_what_is_found_is_a_plan_no_better_than_its_bound(random: Random, count: int, objective: str, sessions: int) -> None:
    model, hardware, load = mixtral(), cards(random, count), Load(sessions, 4096, objective=objective)
    found = search(model, hardware, load, None)
    assert found is not None
    choice, bound_s = found
    laid_out(choice, model, hardware, load)
    assert 0 < bound_s <= choice.seconds


@settings(max_examples=3)
@given(st.randoms(use_true_random=False), st.sampled_from(OBJECTIVES))
def test_one_more_device_or_a_faster_link_is_never_worse(random: Random, objective: str) -> None:
    model, hardware, load = mixtral(), cards(random, 13), Load(3, 4096, objective=objective)
    fewer = search(model, hardware.without("w05"), load, None)
    assert fewer is not None
    more = search(model, hardware, load, fewer[0])
    assert more is not None and more[0].seconds <= fewer[0].seconds * (1 + 1e-12)
    known = {pair: Link(link.rtt_s / 2, link.bytes_per_s * 2) for pair, link in hardware.links.known.items()}
    faster = search(model, replace(hardware, links=Links(known)), load, more[0])
    assert faster is not None and faster[0].seconds <= more[0].seconds * (1 + 1e-12)


@settings(max_examples=10)
@given(st.randoms(use_true_random=False), st.integers(2, 5), st.sampled_from(OBJECTIVES), st.integers(1, 3))
def test_a_small_swarm_is_between_the_bound_and_the_optimum(random: Random, count: int, objective: str, sessions: int) -> None:
    model, load = mixtral(8), Load(sessions, 4096, objective=objective)
    hardware = cards(random, count)
    best, found = optimum(model, hardware, load), search(model, hardware, load, None)
    assert (best is None) == (found is None)
    if best and found:
        seconds = laid_out(best, model, hardware, load).predicted
        assert seconds is not None
        optimum_s = objective_s(seconds, load)
        assert found[1] <= optimum_s * (1 + 1e-9)
        assert found[0].seconds <= optimum_s * 1.25


@pytest.mark.parametrize(("count", "objective"), [(64, "latency"), (32, "throughput"), (32, "balanced")])
def test_many_devices_give_the_same_choice_in_whichever_order_they_come(count: int, objective: str) -> None:
    blocks = 7 * count // 8
    model, hardware, load = mixtral(blocks, 6144, 16384), cards(Random(5), count), Load(4, 8192, objective=objective)
    found = search(model, hardware, load, None)
    again = search(model, replace(hardware, devices=hardware.devices[::-1]), load, None)
    assert found is not None and found == again
    laid_out(found[0], model, hardware, load)


def test_a_model_too_large_for_whole_blocks_gets_expert_shards() -> None:
    model, load = mixtral(8), Load(1, 1024)
    hardware = Hardware(tuple(card(f"w{i:02d}", f"r{i // 4}", 2.9) for i in range(14)))
    found = search(model, hardware, load, None)
    assert found is not None
    assert laid_out(found[0], model, hardware, load).shards


def test_every_block_has_its_copy_on_another_rig_where_that_is_asked() -> None:
    model, load = mixtral(12), Load(2, 4096, objective="latency", standby=True)
    hardware = Hardware(tuple(card(f"w{i:02d}", f"r{i // 3}", 12, 300 + 50 * i) for i in range(12)))
    found = search(model, hardware, load, None)
    assert found is not None
    plan = laid_out(found[0], model, hardware, load)
    rig = {w.name: w.rig for w in plan.workers}
    owner = {b: rig[s.worker] for s in plan.routes[0].stages for b in s.blocks}
    copies = {(b, rig[s.worker]) for s in plan.standbys for b in s.blocks}
    assert all(any(b == block and r != owner[block] for b, r in copies) for block in range(12))


def test_all_devices_are_used_where_that_is_asked() -> None:
    model, load = mixtral(32), Load(2, 4096, spread=True)
    found = search(model, cards(Random(2), 14), load, None)
    assert found is not None
    assert len(laid_out(found[0], model, cards(Random(2), 14), load).workers) == 14


def test_memory_for_two_copies_makes_two_routes_where_that_gives_more_tokens() -> None:
    model, load = mixtral(8), Load(16, 1024, objective="throughput")
    hardware = Hardware(tuple(card(f"w{i:02d}", f"r{i:02d}", 30) for i in range(12)))
    found = search(model, hardware, load, None)
    assert found is not None
    assert len(found[0].routes) == 2
    laid_out(found[0], model, hardware, load)


def test_nothing_is_found_where_nothing_fits() -> None:
    hardware = Hardware(tuple(card(f"w{i:02d}", "r", 3) for i in range(12)))
    assert search(mixtral(), hardware, Load(), None) is None


def _cost(problem: Relaxed, counts: tuple[int, ...], first: int, last: int) -> float:
    rigs = {d: r for r, members in enumerate(problem.rigs) for d in members}
    used = [d for d, n in enumerate(counts) if n]
    total = 0.0
    for d in used:
        ends = FIRST * (d == first) + LAST * (d == last)
        if counts[d] > problem.caps[0, ends, d]:
            return np.inf
        part = max(0, counts[d] - int(problem.whole[0, ends, d]))
        total += counts[d] * problem.block[0, d] + part * problem.beyond[0, d] + problem.fixed[0, ends, d]
    for rig in {rigs[d] for d in used}:
        members = sum(rigs[d] == rig for d in used)
        total += (members - 1) * problem.inside[0, rig] + (rig != rigs[first]) * problem.enter[0, rig]
    return total


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_relaxation_is_the_least_of_all_ways(seed: int, blocks: int) -> None:
    random = np.random.default_rng(seed)
    whole = random.integers(0, 4, (1, 4, 4))
    problem = Relaxed(
        rigs=[[0, 2], [1], [3]],
        block=random.uniform(0.1, 1, (1, 4)),
        beyond=random.uniform(0, 1, (1, 4)),
        fixed=random.uniform(0, 1, (1, 4, 4)),
        whole=whole,
        caps=whole + random.integers(0, 3, (1, 4, 4)),
        enter=random.uniform(0.5, 2, (1, 3)),
        inside=random.uniform(0, 0.5, (1, 3)),
        num_blocks=blocks,
    )
    ways = [c for c in product(range(blocks + 1), repeat=4) if sum(c) == blocks]
    ends = [(c, f, z) for c in ways for f in range(4) for z in range(4) if c[f] and c[z] and (f == z) == (c[f] == blocks)]
    least = min((_cost(problem, c, f, z) for c, f, z in ends), default=np.inf)
    solved = problem.solve()
    assert solved.sums[0] == pytest.approx(least)
    if np.isfinite(least):
        seats = solved.seats(0)
        counts = tuple(sum(n for d, n, _ in seats if d == device) for device in range(4))
        first, last = (next(d for d, _, ends in seats if ends & end) for end in (FIRST, LAST))
        assert _cost(problem, counts, first, last) == pytest.approx(least)


@settings(max_examples=15)
@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_the_best_counts_in_an_order_are_the_best_of_all_counts(random: Random, blocks: int) -> None:
    table = Table.of(mixtral(blocks), cards(random, 4), Load(1, 1024))
    terms = Clock.of(table).alone
    extra = np.array([[random.uniform(0, 0.01) for _ in range(blocks)] for _ in range(4)])
    problem = Ordered(terms, np.minimum(table.caps, 2), np.ones((4, 4), dtype=np.bool_), extra)
    found = best_stages(problem)

    def cost(stages: list[tuple[int, int]]) -> float:
        ends = [FIRST * (i == 0) + LAST * (i == len(stages) - 1) for i in range(len(stages))]
        if any(n > problem.caps[end, d] for (d, n), end in zip(stages, ends, strict=True)):
            return np.inf
        at, more = 0, 0.0
        for device, n in stages:
            more += extra[device, at : at + n].sum()
            at += n
        return around_s(stages, terms) + more

    ways = [[(d, n) for d, n in enumerate(c) if n] for c in product(range(3), repeat=4) if sum(c) == blocks]
    least = min((cost(way) for way in ways), default=np.inf)
    assert (cost(found) if found else np.inf) == pytest.approx(least)
