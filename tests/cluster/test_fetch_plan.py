"""Which rig fetches which file from where, values in and values out."""

from __future__ import annotations

import pytest

from cluster.fetch_plan import Absent, Survey, Unobtainable, plan_fetches
from swarm.errors import MissingWeights, NoRoom

GIB = 2**30


def lacks(*names: str, size: int = 4 * GIB, begun: int = 0) -> dict[str, Absent]:
    return {name: Absent(size, size // 2, begun) for name in names}


def rig(name: str, absent: dict[str, Absent] | None = None, *, held: str = "", free: int = 100 * GIB, trouble: str = "") -> Survey:
    return Survey(name, f"{name}/cpu", f"{name}:1", absent or {}, frozenset(held.split()), "", "/hub", free, trouble)


def orders(*surveys: Survey) -> dict[str, tuple[str, ...]]:
    return {fetch.rig: fetch.files for fetch in plan_fetches(surveys).fetches}


def test_each_rig_fetches_what_only_it_needs() -> None:
    assert orders(rig("head", lacks("1", "2")), rig("b", lacks("3"))) == {"head": ("1", "2"), "b": ("3",)}


def test_a_file_that_two_rigs_need_comes_once_and_the_other_takes_it_from_there() -> None:
    decided = plan_fetches([rig("head", lacks("1", "2")), rig("b", lacks("2", "3"))])
    assert sorted(name for fetch in decided.fetches for name in fetch.files) == ["1", "2", "3"]
    assert sum("straight into memory" in line for line in decided.lines) == 1


def test_what_a_rig_has_is_fetched_by_nobody() -> None:
    decided = plan_fetches([rig("head", held="1 2"), rig("b", lacks("1", "2"))])
    assert not decided.fetches
    assert decided.lines == ("b takes 4.0 GiB from head, straight into memory",)


def test_a_rig_without_access_to_the_hub_has_the_head_fetch_for_it() -> None:
    assert orders(rig("head"), rig("b", lacks("1"), trouble="no token")) == {"head": ("1",)}


def test_a_rig_without_room_has_another_fetch_for_it() -> None:
    assert orders(rig("head"), rig("b", lacks("1"), free=GIB)) == {"head": ("1",)}


def test_what_was_begun_counts_as_there() -> None:
    assert orders(rig("b", lacks("1", begun=3 * GIB), free=GIB)) == {"b": ("1",)}


def test_too_little_room_names_rig_folder_needed_and_free() -> None:
    with pytest.raises(Unobtainable) as caught:
        plan_fetches([rig("b", lacks("1", "2", "3"), free=10 * GIB)])
    assert isinstance(caught.value.cause, NoRoom)
    assert "b needs 12.0 GiB in /hub" in str(caught.value) and "10.0 GiB free" in str(caught.value)
    assert caught.value.worker == "b/cpu"


def test_where_no_rig_may_fetch_the_reason_is_the_heads() -> None:
    with pytest.raises(Unobtainable) as caught:
        plan_fetches([rig("head", trouble="set HF_TOKEN"), rig("b", lacks("1"), trouble="no network")])
    assert isinstance(caught.value.cause, MissingWeights)
    assert str(caught.value) == "head: set HF_TOKEN"


def test_the_lines_say_what_where_to_and_how_much_room_there_is() -> None:
    (line,) = plan_fetches([rig("head", lacks("1", "2"))]).lines
    assert line == "head fetches 2 files, 8.0 GiB, from the Hub into /hub (100.0 GiB free)"


def test_two_workers_of_one_rig_count_a_file_once() -> None:
    two = [Survey("head", f"head/cuda:{i}", "head:1", lacks("1"), frozenset(), "", "/hub", 5 * GIB) for i in range(2)]
    (fetch,) = plan_fetches(two).fetches
    assert (fetch.files, fetch.num_bytes) == (("1",), 4 * GIB)
