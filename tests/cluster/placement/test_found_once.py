"""Swarms on which a planner of ours once did worse than brute force, each as small as it could be made."""

from __future__ import annotations

from dataclasses import replace

import pytest
from brute_force import brute_force
from swarms import Swarm, device, shape

from cluster.planner import Load, Prices, make_plan
from cluster.planner.hardware import Hardware, Link, Links, Speed
from cluster.planner.predict import objective_s, predict
from swarm.plan import Model, Plan

FAST = Link(0.1e-3, 1.2e9)


def narrow(blocks: int, experts: int, hidden: int = 4096, ffn: int = 2048) -> Model:
    """One expert a row, and next to no vocabulary."""
    model = shape(blocks, experts)
    return replace(model, config=replace(model.config, hidden=hidden, ffn=ffn, vocab=512, top_k=1))


def planned(asked: Swarm) -> Plan:
    """The Plan, once it is as good as brute force's."""
    plan, best = make_plan(asked.model, asked.hardware, asked.load, 1), brute_force(asked.model, asked.hardware, asked.load)
    assert best
    seconds = objective_s(predict(plan, asked.hardware, asked.load), asked.load)
    assert seconds == pytest.approx(best[0], rel=1e-9, abs=0)
    assert plan.predicted == predict(plan, asked.hardware, asked.load)
    return plan


def test_one_expert_elsewhere_is_dearer_once_and_beats_a_second_stage() -> None:
    """A bound that charged the first Block with experts elsewhere twice ruled this Plan out: 3% of a token."""
    load, model = Load(1, 32768, objective="latency"), narrow(3, 2)
    prices = Prices.of(model, load)
    memory = prices.budget(range(3), 1, 0).total_bytes
    speed = Speed.of(467e9, 40e12, 8e-6, 2)
    hardware = Hardware(tuple(device(i, "a", memory, speed) for i in range(2)), Links(inside=FAST))
    plan = planned(Swarm(model, hardware, load))
    assert [len(s.experts) for s in plan.shards] == [1]


def test_a_small_fast_card_owns_all_blocks_and_a_slow_one_with_room_all_experts() -> None:
    """The same bound again: 0.7% of the objective."""
    load, model = Load(3, 512), narrow(4, 2, 4096, 14336)
    slow, fast = Speed.of(1 / 2.11e-11, 5e11, 3e-5, 2), Speed.of(1 / 2.745e-12, 12e12, 8e-6, 2)
    devices = (device(0, "b", 4532109312, slow), device(1, "b", 648323072, fast))
    asked = Swarm(model, Hardware(devices, Links({}, Link(20e-6, 5e9), Link(0.4e-3, 1e9)), "b"), load)
    plan = planned(asked)
    assert [s.worker for s in plan.routes[0].stages] == ["w1"]


def test_three_sessions_on_two_routes_are_priced_as_predicted() -> None:
    """With 1.5 Sessions a Route and two micro-batches under way each has 0.75 rows; the search sent 0.75 rows to a shard too."""
    load, model = Load(3, 32768), narrow(2, 2, 1024, 3584)
    speeds = (Speed.of(1.06e12, 5e12, 9e-5, 2), Speed.of(0.99e12, 5e12, 9e-5, 2), Speed.of(3.69e10, 5e11, 3e-5, 2))
    memories, rigs = (835514746, 680654406, 1220277531), "bcc"
    devices = tuple(device(i, r, m, s) for i, (r, m, s) in enumerate(zip(rigs, memories, speeds, strict=True)))
    links = {("b", "b"): FAST, ("b", "c"): Link(3e-3, 20e6), ("c", "c"): Link(0.4e-3, 1e9)}
    plan = planned(Swarm(model, Hardware(devices, Links(links, FAST, Link(0.4e-3, 1e9))), load))
    assert len(plan.routes) == 2


def test_of_two_equal_devices_one_is_left_out_and_the_plan_says_so() -> None:
    """To say what the one left out would cost, equal Devices were told apart in one place and not in another: a KeyError."""
    load, model = Load(2, 8192, objective="latency"), shape(2, 4)
    memory = Prices.of(model, load).budget(range(2), 0, 0).total_bytes
    speed = Speed.of(900e9, 70e12, 6e-6, 2)
    hardware = Hardware(tuple(device(i, "a", memory, speed) for i in range(2)), Links(inside=Link(3e-3, 20e6)))
    plan = planned(Swarm(model, hardware, load))
    assert [w.name for w in plan.workers] == ["w0"]
    assert any("not used" in note for note in plan.notes)
