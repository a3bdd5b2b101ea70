"""On which Route a Session goes, decided from numbers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from swarm.client.route_choice import home_of, left_behind, route_order
from swarm.plan import Plan, Route, Stage


@dataclass(frozen=True)
class Routed:
    """What is looked at of a Plan."""

    routes: tuple[Route, ...]


def plan(*routes: list[tuple[str, int, int]]) -> Plan:
    return cast(Plan, Routed(tuple(route(*stages) for stages in routes)))


def route(*stages: tuple[str, int, int]) -> Route:
    return Route(tuple(Stage(*stage) for stage in stages))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.sets(st.integers(0, 3)), st.integers(0, 3), st.integers(0, 3))
def test_every_route_is_tried_the_lost_ones_last_and_the_emptiest_first(
    sessions: list[int], lost: set[int], home: int, turn: int
) -> None:
    order = route_order(sessions, lost, home, turn)
    assert sorted(order) == list(range(len(sessions)))
    assert [r in lost for r in order] == sorted(r in lost for r in order)
    alive = [sessions[r] for r in order if r not in lost]
    assert alive == sorted(alive)


def test_sessions_spread_evenly_and_stay_where_they_are_while_that_is_even() -> None:
    assert route_order([0, 0], (), None, 0) == [0, 1]
    assert route_order([0, 0], (), None, 1) == [1, 0]
    assert route_order([1, 0], (), None, 0) == [1, 0]
    assert route_order([1, 1], (), 1, 0) == [1, 0]
    assert route_order([2, 0], (), 0, 0) == [1, 0]
    assert route_order([0, 5], {0}, 0, 0) == [1, 0]


def test_the_home_of_a_session_is_where_most_of_its_kv_is() -> None:
    old = route(("a", 0, 4), ("b", 4, 8))
    assert home_of(None, plan([("a", 0, 8)])) is None
    assert home_of(old, plan([("c", 0, 8)])) is None
    assert home_of(old, plan([("c", 0, 8)], [("a", 0, 3), ("b", 3, 8)])) == 1
    assert home_of(old, plan([("b", 0, 8)], [("a", 0, 3), ("c", 3, 8)])) == 0


def test_only_workers_that_serve_another_route_are_told_that_a_session_left() -> None:
    old, new = route(("a", 0, 4), ("b", 4, 6), ("c", 6, 8)), route(("d", 0, 4), ("c", 4, 8))
    made = plan([("a", 0, 8)], [("d", 0, 4), ("c", 4, 8)])
    assert left_behind(old, new, made) == {"a"}
    assert left_behind(None, new, made) == set()
    assert left_behind(new, new, made) == set()
