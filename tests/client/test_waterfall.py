"""Where a token's time goes: pieces add up to the traversal, and only one machine's clock is read across Stages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from swarm.client.trace import Trace, Way
from swarm.client.waterfall import COUNTED, ONE_CLOCK, REST, SHARED, Waterfall, waterfall
from swarm.wire.v1 import stage_pb2 as pb

APART = {"w0": "attic", "w1": "desk", "w2": "closet"}
TOGETHER = dict.fromkeys(APART, "attic")


@dataclass
class Done:
    """A traversal that ended."""

    traversal_s: float
    timings: tuple[pb.StageTiming, ...]


def timing(worker: str, began_s: float, compute_s: float, queue_s: float = 0.0, shard_wait_s: float = 0.0) -> pb.StageTiming:
    return pb.StageTiming(worker=worker, began_s=began_s, compute_s=compute_s, queue_s=queue_s, shard_wait_s=shard_wait_s)


def three_stages() -> tuple[pb.StageTiming, ...]:
    """31 ms on one clock: 10 computing, 2 to w1, 1 in its queue, 6 computing (2 of it a wait), 3 to w2, 9 computing."""
    return timing("w0", 7.0, 0.010), timing("w1", 7.013, 0.006, 0.001, 0.002), timing("w2", 7.022, 0.009)


def way_of(*traversals: Done) -> Way:
    trace = Trace()
    for done in traversals:
        trace.add(done)
    (way,) = trace.ways
    return way


def total(fall: Waterfall) -> float:
    return sum(s.compute_s + s.queue_s + s.shard_wait_s + s.hop_s for s in fall.stages)


@pytest.mark.parametrize(
    "rigs", [APART, TOGETHER, {"w0": "attic", "w1": "attic", "w2": "desk"}], ids=["apart", "together", "mixed"]
)
@pytest.mark.parametrize("hops", [{}, {"w1": 0.004}, {"w0": 0.002, "w1": 0.004}, {"w0": 9.0}], ids=str)
def test_what_the_stages_have_adds_up_to_the_traversal(rigs: dict[str, str], hops: dict[str, float]) -> None:
    fall = waterfall(way_of(Done(0.040, three_stages()), Done(0.050, three_stages())), rigs, hops)
    assert fall.traversals == 2 and fall.traversal_s == pytest.approx(0.045)
    assert total(fall) == pytest.approx(fall.traversal_s)
    assert all(s.hop_s >= 0 for s in fall.stages)


def test_stages_of_one_rig_share_a_clock_that_times_the_hop_between_them() -> None:
    fall = waterfall(way_of(Done(0.041, three_stages())), TOGETHER, {})
    assert [s.hop_s for s in fall.stages] == pytest.approx([0.010, 0.002, 0.003])
    assert [s.hop_by for s in fall.stages] == [REST, ONE_CLOCK, ONE_CLOCK]
    assert [s.compute_s for s in fall.stages] == pytest.approx([0.010, 0.004, 0.009])  # the wait for shards is another piece
    assert [s.shard_wait_s for s in fall.stages] == pytest.approx([0, 0.002, 0])


@pytest.mark.parametrize("shift_s", [-1e6, -0.002, 0.0, 0.002, 1e6])
def test_a_clock_of_another_rig_changes_nothing(shift_s: float) -> None:
    first, second, third = three_stages()
    second.began_s += shift_s
    shifted = waterfall(way_of(Done(0.041, (first, second, third))), APART, {})
    assert shifted == waterfall(way_of(Done(0.041, three_stages())), APART, {})
    assert [s.hop_s for s in shifted.stages] == pytest.approx([0.0075, 0.00375, 0.00375])  # 15 ms are left, for four ways
    assert {s.hop_by for s in shifted.stages} == {SHARED}


def test_rigs_of_one_name_that_are_not_one_machine_are_found_out() -> None:
    first, second, third = three_stages()
    second.began_s += 5.0
    fall = waterfall(way_of(Done(0.041, (first, second, third))), TOGETHER, {})
    assert {s.hop_by for s in fall.stages} == {SHARED} and total(fall) == pytest.approx(0.041)


def test_what_a_worker_counted_there_and_back_is_halved_and_the_rest_is_the_clients() -> None:
    fall = waterfall(way_of(Done(0.041, three_stages())), APART, {"w0": 0.006, "w1": 0.010})
    assert [s.hop_s for s in fall.stages] == pytest.approx([0.007, 0.003, 0.005])
    assert [s.hop_by for s in fall.stages] == [REST, COUNTED, COUNTED]


def test_counts_that_exceed_what_is_left_of_the_traversal_are_not_believed() -> None:
    fall = waterfall(way_of(Done(0.041, three_stages())), APART, {"w0": 0.020, "w1": 0.020})
    assert {s.hop_by for s in fall.stages} == {SHARED}


def test_an_answer_from_memory_which_brings_no_times_is_left_out() -> None:
    trace, done = Trace(), Done(0.041, three_stages())
    trace.add(done)
    trace.add(replace(done, traversal_s=9.0))  # a Session keeps the times that it heard last
    (way,) = trace.ways
    assert way.count == 1 and way.traversal_s == pytest.approx(0.041)


def test_a_session_that_goes_on_elsewhere_has_a_way_for_each_place_the_most_used_first() -> None:
    trace = Trace()
    trace.skip(Done(1.0, (timing("w0", 0.0, 1.0),)))
    for _ in range(2):
        trace.add(Done(0.041, three_stages()))
    other = Trace()
    other.add(Done(0.020, (timing("w9", 7.0, 0.010),)))
    assert [(way.workers, way.count) for way in trace.merge([other]).ways] == [(("w0", "w1", "w2"), 2), (("w9",), 1)]
