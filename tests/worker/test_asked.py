"""Asked rows of a micro-batch's Steps, gathered for the head."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.config import LOGIT_ROWS
from swarm.worker.asked import pieces_of


@given(st.lists(st.integers(0, 3 * LOGIT_ROWS), max_size=12))
def test_every_asked_row_is_answered_once_in_order_and_never_more_at_once_than_there_is_room_for(asked: list[int]) -> None:
    groups = list(pieces_of(asked))
    assert all(0 < sum(p.rows for p in group) <= LOGIT_ROWS for group in groups)
    assert all(sum(p.rows for p in group) == LOGIT_ROWS for group in groups[:-1])
    for step, rows in enumerate(asked):
        mine = [p for group in groups for p in group if p.step == step]
        assert [i for p in mine for i in range(p.first, p.first + p.rows)] == list(range(rows))
