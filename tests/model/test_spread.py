"""Which copies are asked for: never more waiting than necessary, and nothing asked for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.spread import spread, work

EVERY = st.dictionaries(st.integers(0, 7), st.integers(1, 40), max_size=8)
HOLDERS = st.dictionaries(st.integers(0, 7), st.integers(0, 1), max_size=5)


def longest(rows: Mapping[int, int], places: Mapping[int, int]) -> int:
    """The longest of local and remote work, in rows."""
    busy: dict[int | None, int] = {}
    for expert, count in rows.items():
        place = places.get(expert)
        busy[place] = busy.get(place, 0) + work(count)
    return max(busy.values(), default=0)


@given(EVERY, HOLDERS, HOLDERS)
def test_no_other_way_to_spread_experts_ends_sooner(rows: dict[int, int], shards: dict[int, int], copies: dict[int, int]) -> None:
    copies = {e: h for e, h in copies.items() if e not in shards}
    away = spread(rows, shards, copies)
    assert away.items() <= copies.items() and set(away) <= set(rows)
    movable = [e for e in copies if e in rows]
    ways = product(*[(None, copies[e]) for e in movable])
    every = [{e: h for e, h in zip(movable, way, strict=True) if h is not None} for way in ways]
    assert longest(rows, shards | away) == min(longest(rows, shards | way) for way in every)


@given(EVERY, HOLDERS, HOLDERS)
def test_an_expert_leaves_the_owner_only_where_it_would_compute_two(
    rows: dict[int, int], shards: dict[int, int], copies: dict[int, int]
) -> None:
    copies = {e: h for e, h in copies.items() if e not in shards}
    away = spread(rows, shards, copies)
    here = [e for e in rows if e not in shards]
    assert not away or len(here) >= 2
    assert len(away) < len(here) or not here
    assert all(longest(rows, shards | {e: h for e, h in away.items() if e != kept}) > longest(rows, shards | away) for kept in away)


@given(EVERY, HOLDERS, HOLDERS)
def test_the_order_in_which_experts_are_listed_changes_nothing(
    rows: dict[int, int], shards: dict[int, int], copies: dict[int, int]
) -> None:
    copies = {e: h for e, h in copies.items() if e not in shards}
    turned = [dict(reversed(list(each.items()))) for each in (rows, shards, copies)]
    assert spread(*turned) == spread(rows, shards, copies)


def test_one_of_two_chosen_experts_goes_to_the_holder_of_its_copy() -> None:
    assert spread({2: 1, 5: 1}, {}, {5: 9}) == {5: 9}
    assert spread({2: 1, 5: 1}, {}, {2: 9, 5: 9}) == {2: 9}
    assert spread({2: 1, 5: 1}, {}, {2: 8, 5: 9}) == {2: 8}
    assert spread({5: 1}, {}, {5: 9}) == {}
    assert spread({2: 1, 5: 1}, {2: 9}, {5: 9}) == {}


def test_of_many_more_experts_than_can_be_tried_about_half_go() -> None:
    rows = dict.fromkeys(range(128), 3)
    away = spread(rows, {}, dict.fromkeys(range(128), 0))
    assert len(away) == 64
