"""The judge is judged: against every Plan one by one, and on cases that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from brute_force import brute_force
from every_plan import cheapest, every_plan
from swarms import SPEEDS, Size, Swarm, device, shape, swarm

from cluster.planner import Load, Prices
from cluster.planner.hardware import Hardware, Links, Speed
from cluster.planner.predict import objective_s, predict

FAST, SLOW = (Speed.of(*SPEEDS[i], 2) for i in (4, 0))


def of(
    num_blocks: int, experts: int, load: Load, *memory: int, rigs: str = "aaaa", speeds: tuple[Speed, ...] = (FAST,) * 4
) -> Swarm:
    devices = tuple(device(i, rigs[i], m, speeds[i]) for i, m in enumerate(memory))
    return Swarm(shape(num_blocks, experts), Hardware(devices, Links()), load)


def whole(num_blocks: int, experts: int, load: Load) -> int:
    prices = Prices.of(shape(num_blocks, experts), load)
    return prices.budget(range(num_blocks), 0, 0).total_bytes


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_it_finds_what_pricing_every_plan_by_itself_finds(seed: int, shared: bool) -> None:
    asked = swarm(Random(seed), Size(3, 2, 2, 3))
    slow, fast = (search(asked.model, asked.hardware, asked.load, shared) for search in (cheapest, brute_force))
    assert (slow is None) == (fast is None)
    if slow and fast:
        assert fast[0] == pytest.approx(slow[0], rel=1e-9)


@pytest.mark.parametrize(("objective", "standby"), [("latency", True), ("throughput", False), ("balanced", True)])
def test_of_three_blocks_and_three_experts_too(objective: str, standby: bool) -> None:
    load = Load(2, 512, objective=objective, standby=standby)
    prices = Prices.of(shape(3, 3), load)
    tight = whole(3, 3, load) - 2 * prices.expert
    asked = of(3, 3, load, tight, prices.fixed(False, False) + 3 * prices.whole, rigs="ab", speeds=(FAST, SLOW))
    slow, fast = (search(asked.model, asked.hardware, asked.load) for search in (cheapest, brute_force))
    assert (slow is None) == (fast is None)
    if slow and fast:
        assert fast[0] == pytest.approx(slow[0], rel=1e-9)


def test_one_device_with_exactly_enough_has_one_plan_and_with_a_byte_less_none() -> None:
    load = Load(1, 512)
    asked = of(3, 2, load, whole(3, 2, load))
    plans = list(every_plan(asked.model, asked.hardware, load))
    assert len(plans) == 1
    found = brute_force(asked.model, asked.hardware, load)
    assert found is not None
    assert found[0] == objective_s(predict(plans[0], asked.hardware, load), load)
    short = of(3, 2, load, whole(3, 2, load) - 1)
    assert brute_force(short.model, short.hardware, load) is None


def test_the_plans_of_two_roomy_devices_are_as_many_as_counting_says() -> None:
    load = Load(2, 512)
    asked = of(1, 2, load, whole(1, 2, load), whole(1, 2, load), rigs="ab")
    plans = list(every_plan(asked.model, asked.hardware, load))
    # One Route: either owns the Block, and each of 2 experts is on either: 2 * 4. Two Routes: one of each, all experts at home.
    assert len(plans) == 2 * 4 + 1


def test_one_person_is_served_best_by_the_fast_card_alone_and_many_by_two_routes() -> None:
    for objective, routes in (("latency", 1), ("throughput", 2)):
        load = Load(2, 512, objective=objective)
        asked = of(4, 1, load, whole(4, 1, load), whole(4, 1, load), rigs="ab")
        found = brute_force(asked.model, asked.hardware, load)
        assert found is not None
        assert len(found[1].routes) == routes


def test_what_only_fits_with_experts_elsewhere_is_found_there() -> None:
    load = Load(1, 512)
    prices = Prices.of(shape(2, 4), load)
    asked = of(2, 4, load, whole(2, 4, load) - 3 * prices.expert, prices.helper + 3 * prices.expert)
    found = brute_force(asked.model, asked.hardware, load)
    assert found is not None
    assert sum(len(s.experts) for s in found[1].shards) == 3
    short = replace(asked.hardware.devices[1].spec, memory_bytes=prices.helper + 3 * prices.expert - 1)
    less = asked.with_devices((asked.hardware.devices[0], replace(asked.hardware.devices[1], spec=short)))
    assert brute_force(less.model, less.hardware, load) is None


def test_a_standby_copy_is_on_another_rig_or_there_is_no_plan() -> None:
    load = Load(1, 512, standby=True)
    for rigs, fits in (("ab", True), ("aa", False)):
        asked = of(2, 2, load, whole(2, 2, load), whole(2, 2, load), rigs=rigs)
        found = brute_force(asked.model, asked.hardware, load)
        assert (found is not None) == fits
        if found:
            assert sorted(b for s in found[1].standbys for b in s.blocks) == [0, 1]
