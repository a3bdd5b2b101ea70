"""How much may be under way, and what the next micro-batch has of it: for running answers, and for prompts beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.plan import PIECE_ROWS
from swarm.worker.around import Around
from swarm.worker.batching import STRETCH, BesideRows, Group, Places, alone_rows

MOST = 256


def test_as_many_micro_batches_as_keep_every_stage_busy_and_never_more_than_answers() -> None:
    assert [Places.of(n, 3).answers for n in (0, 2, 50)] == [0, 2, 4]
    assert Places.of(50, 3, fixed=1).answers == 1
    assert Places.of(50, 3, fixed=9).answers == 9
    assert Places.of(2, 3, fixed=9).answers == 2


def test_what_is_on_its_way_outside_the_stages_has_places_too() -> None:
    assert [Places.of(50, 3, outside=n).answers for n in (1, 2, 5)] == [4, 5, 8]
    assert Places.of(4, 3, outside=5).answers == 4, "no more than there are answers"
    assert Places.of(50, 3, fixed=2, outside=5).answers == 2, "what the Plan says goes before"


def looped(around: Around, outside_s: float, inside_s: float, slowest_s: float, report_first: bool = True) -> int:
    """What is said once a Session went round so, often enough."""
    for number in range(40):
        now = 100.0 * number
        around.sent([b"s"], now)
        if report_first:
            around.reported([b"s"], inside_s, slowest_s)
        around.back(b"s", now + inside_s + outside_s)
        if not report_first:
            around.reported([b"s"], inside_s, slowest_s)
    return around.outside


def test_as_many_are_outside_as_the_slowest_stage_computes_meanwhile() -> None:
    assert Around().outside == 1, "nothing is measured yet"
    for report_first in (True, False):
        assert looped(Around(), 0.001, 0.1, 0.05, report_first) == 1
        assert looped(Around(), 0.012, 0.01, 0.005, report_first) == 3
    assert looped(Around(), 0.012, 0.4, 0.005) == 3, "waiting in a Stage's queue is not outside"


def test_places_follow_what_is_measured_now() -> None:
    around = Around()
    assert looped(around, 0.018, 0.01, 0.005) == 4
    assert looped(around, 0.001, 0.01, 0.005) == 1


def test_a_way_that_never_ended_is_forgotten_and_counts_nothing() -> None:
    around = Around()
    around.sent([b"s"], 1.0)
    around.reported([b"s"], 0.01, 0.005)
    around.forget(before=2.0)
    around.back(b"s", 500.0)
    assert around.outside == 1


def test_prompts_alone_have_a_chunk_for_each_stage_and_one_on_its_way_whatever_is_best_for_answers() -> None:
    assert [Places.of(0, stages).prompts for stages in (1, 2, 3)] == [2, 3, 4]
    assert Places.of(0, 2, fixed=1).prompts == 3
    assert Places.of(0, 2, fixed=7).prompts == 7


def test_a_prompt_has_one_chunk_under_way_where_answers_fill_all_places() -> None:
    places = Places.of(8, 2)
    assert places.prompts == 1
    assert places.prompt_may_go([Group(2), Group(3)], turns=3, waiting=False)
    assert not places.prompt_may_go([Group(0, 64), Group(3)], turns=3, waiting=False)


def test_a_running_answer_has_one_chunk_a_token_though_the_chunk_before_is_through() -> None:
    places = Places.of(8, 2)
    assert not places.prompt_may_go([Group(2), Group(3)], turns=2, waiting=False)
    assert not places.prompt_may_go([Group(0)], turns=2, waiting=True)
    assert places.prompt_may_go([Group(0)], turns=0, waiting=False), "nobody would wait for it"


def test_where_answers_fill_all_places_a_prompt_goes_with_them_and_not_beside_them() -> None:
    places = Places.of(8, 2, fixed=2)
    assert not places.free([Group(4), Group(4)])
    assert places.free([Group(4), Group(0)]), "what is answered has no place any more"
    assert places.free([Group(4, 64)])


def test_answers_wait_for_a_place_of_their_own_and_not_for_prompts() -> None:
    places = Places.of(2, 2)
    assert places.next_answers(2, [Group(0, 64), Group(0, 64), Group(1, 64)]) == 1
    assert places.next_answers(2, [Group(1), Group(1, 64)]) == 0


@given(st.integers(1, 40), st.integers(1, 8))
def test_micro_batches_under_way_differ_by_one_answer_at_most(answering: int, stages: int) -> None:
    places = Places.of(answering, stages)
    under_way: list[Group] = []
    while taken := places.next_answers(answering, under_way):
        under_way.append(Group(taken))
    sizes = [group.answers for group in under_way]
    assert sum(sizes) == answering
    assert max(sizes) - min(sizes) <= 1


def seconds(chunks: list[int], stages: int, start_rows: int) -> int:
    """Until the last Stage is through with the last chunk, where a row takes each Stage a second."""
    free = [0] * stages
    for chunk in chunks:
        for stage in range(stages):
            free[stage] = max(free[stage], free[stage - 1] if stage else 0) + start_rows + chunk
    return free[-1]


@given(st.integers(1, 4096), st.integers(2, 6), st.integers(1, 512))
def test_no_equal_chunks_take_a_prompt_through_the_stages_much_quicker(rows: int, stages: int, start_rows: int) -> None:
    chunks = list[int]()
    while (left := rows - sum(chunks)) > 0:
        chunks.append(min(left, alone_rows(left, max(chunks, default=0), stages, start_rows, MOST)))
    equal = [[min(n, rows - at) for at in range(0, rows, n)] for n in range(PIECE_ROWS, MOST + 1, PIECE_ROWS)]
    best = min(seconds(each, stages, start_rows) for each in equal)
    assert seconds(chunks, stages, start_rows) <= 1.1 * best, chunks


def test_one_stage_takes_as_much_prompt_at_once_as_it_may() -> None:
    assert alone_rows(2048, 0, 1, 48, MOST) == MOST


def test_a_short_prompt_is_cut_so_that_both_stages_work() -> None:
    assert alone_rows(256, 0, 2, 16, MOST) == 64
    assert alone_rows(256, 0, 2, 48, MOST) == 128
    assert alone_rows(2048, 0, 2, 16, MOST) == 160
    assert alone_rows(33, 0, 2, 48, MOST) >= 33


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_prompt_beside_answers_makes_their_tokens_no_more_than_so_much_longer(stages: int) -> None:
    start_s, plain_s, row_s = 0.05, 0.07, 0.0002
    places, beside, rows = Places.of(8, stages), BesideRows(), 0
    for _ in range(80):
        beside.took(0, plain_s)
        rows = beside.rows(stages, places, 1, 10_000)
        beside.took(rows, plain_s + start_s + rows * row_s)
    quiet_s, chunk_s = places.answers * plain_s, plain_s + start_s + rows * row_s
    round_s = max(quiet_s - plain_s + chunk_s, stages * chunk_s)  # the next chunk goes when the one before is through all Stages
    assert 0.8 * (1 + STRETCH) * quiet_s < round_s <= 1.05 * (1 + STRETCH) * quiet_s


def test_a_prompt_beside_answers_goes_on_however_dear_it_is_and_never_beyond_the_plan() -> None:
    places, dear, cheap = Places.of(4, 2), BesideRows(), BesideRows()
    assert dear.rows(2, places, 48, MOST) == 64, "nothing is measured yet"
    for beside, seconds in ((dear, 10.0), (cheap, 0.0101)):
        beside.took(0, 0.01)
        beside.took(64, seconds)
    assert dear.rows(2, places, 1, MOST) == PIECE_ROWS
    assert dear.rows(2, places, 48, MOST) == 64
    assert cheap.rows(2, places, 48, MOST) == MOST
