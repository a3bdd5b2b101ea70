"""What is guessed from the past, and how much of it is worth sending."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.client.draft import GROUNDS, Lookup
from swarm.client.draft_length import MOST, DraftLength
from swarm.config import ModelConfig
from swarm.shapes import SHAPES

MIXTRAL = SHAPES["mixtral-8x7b"]


def looked_up(tokens: list[int], most: int = 8) -> tuple[int, ...]:
    lookup = Lookup()
    lookup.follow(tokens)
    return lookup.guess(most).tokens


def test_what_followed_the_last_tokens_before_is_guessed_again() -> None:
    assert looked_up([1, 2, 3, 4, 5, 6, 9, 2, 3], most=3) == (4, 5, 6)


def test_the_latest_occurrence_of_the_longest_run_speaks() -> None:
    assert looked_up([7, 1, 2, 10, 7, 1, 2, 20, 0, 1, 2], most=1) == (20,)
    assert looked_up([7, 1, 2, 10, 8, 1, 2, 20, 0, 7, 1, 2], most=1) == (10,)


def test_a_circle_is_guessed_on_and_on() -> None:
    assert looked_up([1, 2, 3, 1, 2, 3, 1, 2, 3], most=7) == (1, 2, 3, 1, 2, 3, 1)


def test_nothing_is_guessed_where_nothing_was_said_twice() -> None:
    assert looked_up(list(range(50))) == () and looked_up([]) == () and looked_up([5]) == ()


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=60), st.integers(0, 60))
def test_a_past_that_grew_piece_by_piece_or_was_edited_guesses_like_one_that_came_at_once(
    first: list[int], then: list[int], cut: int
) -> None:
    lookup = Lookup()
    for end in range(len(first) + 1):
        lookup.follow(first[:end])
    edited = [*first[:cut], *then]
    lookup.follow(edited)
    assert lookup.guess(8) == (fresh := Lookup(), fresh.follow(edited))[0].guess(8)
    assert lookup.guess(8).ground in (0, *GROUNDS)


def fed(config: ModelConfig, right: float, fixed_s: float, work_s: float, noise: float = 0.0) -> DraftLength:
    """After sixty traversals in which so large a share of tokens was right; seconds are fixed, and a share of all weights."""
    length, dice = DraftLength(config), random.Random(0)
    for _ in range(60):
        sent = length.best(8)
        kept = next((i for i in range(max(sent, 1)) if dice.random() > right), max(sent, 1))
        length.verified(8, max(sent, 1), kept)
        experts = config.num_experts * (1 - (1 - config.top_k / config.num_experts) ** (1 + sent)) / config.top_k
        length.took(1 + sent, (fixed_s + work_s * experts) * dice.uniform(1 - noise, 1 + noise))
    return length


def test_drafts_that_are_always_right_are_sent_whole_over_slow_links() -> None:
    assert fed(MIXTRAL, right=1.0, fixed_s=0.05, work_s=0.005).best(8) == MOST


def test_drafts_that_are_always_wrong_are_not_sent() -> None:
    assert fed(MIXTRAL, right=0.0, fixed_s=0.05, work_s=0.005).best(8) == 0


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_dearer_the_rows_the_fewer_are_drafted(noise: float) -> None:
    best = [fed(MIXTRAL, 0.7, fixed, 0.05, noise).best(8) for fixed in (0.0, 0.05, 1.0)]
    assert best[0] <= best[1] <= best[2] and best[0] < best[2]


def test_drafts_of_other_ground_are_judged_by_themselves() -> None:
    length = fed(MIXTRAL, right=1.0, fixed_s=0.05, work_s=0.005)
    for _ in range(20):
        length.verified(2, 1, 0)
    assert length.best(8) == MOST and length.best(2) == 0


def test_a_guess_that_was_not_sent_teaches_too_so_that_drafting_begins_when_it_would_pay() -> None:
    length = fed(MIXTRAL, right=0.0, fixed_s=0.05, work_s=0.005)
    assert length.best(8) == 0
    for _ in range(30):
        length.verified(8, 1, 1)
        length.took(1, 0.055)
    assert length.best(8) > 0


def test_nothing_is_sent_before_anything_was_measured() -> None:
    assert DraftLength(MIXTRAL).best(8) == 0
