from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.client.stops import StopScanner
from swarm.errors import UsageError


def naive(stops: list[str], text: str) -> tuple[str, bool]:
    for end in range(1, len(text) + 1):
        done = [stop for stop in stops if text[:end].endswith(stop)]
        if done:
            return text[: end - max(map(len, done))], True
    return text, False


def scanned(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    shown = ""
    for piece in pieces:
        emit, hit = scanner.push(piece)
        shown += emit
        if hit:
            assert scanner.push("more") == ("", True)
            return shown + scanner.finish(), True
    return shown + scanner.finish(), False


FEW = st.text(alphabet="ab\n", max_size=4)


@given(stops=st.lists(FEW.filter(bool), max_size=4), pieces=st.lists(FEW, max_size=12))
def test_the_outcome_is_that_of_a_search_through_the_whole_text(stops: list[str], pieces: list[str]) -> None:
    assert scanned(stops, pieces) == naive(stops, "".join(pieces))


@given(stops=st.lists(FEW.filter(bool), max_size=4), pieces=st.lists(FEW, max_size=12))
def test_no_more_is_held_back_than_could_still_become_a_stop(stops: list[str], pieces: list[str]) -> None:
    scanner, shown, text = StopScanner(stops), "", ""
    for piece in pieces:
        emit, hit = scanner.push(piece)
        if hit:
            break
        shown, text = shown + emit, text + piece
        held = text[len(shown) :]
        assert text.startswith(shown)
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_a_stop_string_across_many_pieces_is_never_shown() -> None:
    assert scanned(["\nUser:"], ["Paris", ".", "\n", "Us", "er", ": hi"]) == ("Paris.", True)


def test_what_only_looked_like_a_stop_is_shown() -> None:
    assert scanned(["\nUser:"], ["a\nUs", "eful", "\n"]) == ("a\nUseful\n", False)


def test_without_stops_everything_passes_at_once() -> None:
    assert StopScanner([]).push("anything") == ("anything", False)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(UsageError, match="empty stop string"):
        StopScanner(["x", ""])
