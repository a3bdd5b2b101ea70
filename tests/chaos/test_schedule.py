"""Which fault comes when is drawn from a seed, and from nothing else."""

from __future__ import annotations

from collections import Counter

from faults import FAULTS
from schedule import blow
from shapes import OVER_RELAYS, RIGS, SHAPES

KINDS = {name: shape.kinds for name, shape in SHAPES.items()}


def test_a_seed_and_a_number_are_the_same_fault_again_and_others_are_others() -> None:
    again = [[blow(7, number, KINDS) for number in range(200)] for _ in range(2)]
    assert again[0] == again[1]
    other = [blow(8, number, KINDS) for number in range(200)]
    assert [b.seconds for b in other] != [b.seconds for b in again[0]] and [b.kind for b in other] != [b.kind for b in again[0]]


def test_each_kind_comes_once_before_any_comes_again() -> None:
    deck = SHAPES["spread"].kinds
    drawn = [blow(3, number, {"spread": deck}, run=1).kind for number in range(3 * len(deck))]
    for start in range(0, len(drawn), len(deck)):
        assert Counter(drawn[start : start + len(deck)]) == Counter(deck)


def test_a_fault_hits_one_of_its_swarms_rigs_for_seconds_in_the_middle_of_an_answer() -> None:
    drawn = [blow(1, number, KINDS, longest_s=3.0) for number in range(400)]
    assert {b.of(RIGS) for b in drawn} == set(RIGS) and {b.shape for b in drawn} == set(SHAPES)
    assert all(0.3 <= b.seconds <= 3.0 and 1 <= b.tokens <= 10 and 0 <= b.amount < 1 for b in drawn)


def test_every_fault_that_there_is_hits_some_swarm_and_none_is_named_that_is_not() -> None:
    assert {kind for shape in SHAPES.values() for kind in shape.kinds} == set(FAULTS)
    assert not any(
        shape.cables and set(shape.kinds) & (set(OVER_RELAYS) - {"link cut", "link narrow"}) for shape in SHAPES.values()
    )
