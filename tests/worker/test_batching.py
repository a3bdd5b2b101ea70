"""Which Steps become a micro-batch: fair, in order, bounded, and never none for ever."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from swarm.worker.batching import EntryQueue, fair_share, group_limit

CHUNK, MOST = 8, 12


@dataclass(frozen=True)
class Step:
    session: bytes
    num_rows: int
    number: int

    @property
    def serial(self) -> int:
        return self.number


steps = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(1, 2 * MOST)), max_size=30)


def share(queue: EntryQueue[Step], groups: int) -> list[Step]:
    """The next micro-batch where those that wait are spread over so many."""
    return queue.take(max(1, -(-len(queue.sessions()) // max(1, groups))), CHUNK, MOST)


def queue_of(drawn: list[tuple[bytes, int]]) -> EntryQueue[Step]:
    queue: EntryQueue[Step] = EntryQueue()
    for number, (session, rows) in enumerate(drawn):
        queue.push(Step(session, rows, number))
    return queue


@given(steps, st.integers(0, 5))
def test_every_step_is_taken_once_each_sessions_in_order_and_none_waits_for_ever(
    drawn: list[tuple[bytes, int]], groups: int
) -> None:
    queue, taken = queue_of(drawn), []
    while len(queue):
        batch = share(queue, groups)
        assert batch, "Steps wait, and none is taken"
        assert len({s.session for s in batch}) == len(batch), "two Steps of a Session in one micro-batch"
        assert len(batch) == 1 or sum(s.num_rows for s in batch) <= MOST
        taken += batch
    assert sorted(s.number for s in taken) == list(range(len(drawn)))
    for session in {s.session for s in taken}:
        numbers = [s.number for s in taken if s.session == session]
        assert numbers == sorted(numbers)


@given(steps, st.integers(1, 4))
def test_a_micro_batch_has_a_fair_share_of_the_sessions(drawn: list[tuple[bytes, int]], groups: int) -> None:
    queue = queue_of(drawn)
    waiting = len(queue.sessions())
    assert len(share(queue, groups)) <= -(-waiting // groups)


def test_decode_steps_pass_a_second_prompt_that_must_wait() -> None:
    queue = queue_of([(b"a", CHUNK), (b"b", CHUNK), (b"c", 1)])
    assert {s.session for s in share(queue, 1)} == {b"a", b"c"}
    assert [s.session for s in share(queue, 1)] == [b"b"]


def test_a_long_prompt_does_not_keep_a_running_answer_waiting_for_more_than_a_chunk() -> None:
    queue = queue_of([(b"a", CHUNK)] * 6 + [(b"b", 1)])
    first_two = [s.session for _ in range(2) for s in share(queue, 2)]
    assert b"b" in first_two


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 6))
def test_neither_running_answers_nor_prompts_starve_while_the_others_go_on(answers: int, prompts: int, groups: int) -> None:
    queue: EntryQueue[Step] = EntryQueue()
    waits: dict[bytes, int] = {}
    running, long = [b"d%d" % i for i in range(answers)], [b"p%d" % i for i in range(prompts)]
    for number, session in enumerate(long * 40):
        queue.push(Step(session, CHUNK, number))
    for turn in range(40):  # each answer's next token comes as soon as the one before was served
        for session in set(running) - queue.sessions():
            queue.push(Step(session, 1, turn))
        batch = share(queue, groups)
        for session in running + long:
            waits[session] = 0 if session in {s.session for s in batch} else waits.get(session, 0) + 1
            most = 1 + answers if session in running else (prompts * (1 + answers))
            assert waits[session] <= most, f"{session!r} still waits in turn {turn}"


def test_prompts_go_round_by_round() -> None:
    queue = queue_of([(b"a", CHUNK)] * 3 + [(b"b", CHUNK)] * 2)
    assert [s.session for _ in range(5) for s in share(queue, 2)] == [b"a", b"b", b"a", b"b", b"a"]


def test_steps_that_leave_are_gone_and_no_others() -> None:
    queue = queue_of([(b"a", 1), (b"b", 2), (b"a", 3)])
    assert [s.number for s in queue.remove(lambda s: s.session == b"a")] == [0, 2]
    assert queue.sessions() == {b"b"}
    assert queue.rows_with(Step(b"b", 1, 7)) == 3
    assert queue.rows_with(Step(b"a", 1, 7)) == 1


def test_a_step_that_waits_and_is_sent_again_waits_once_in_its_old_place() -> None:
    queue = queue_of([(b"a", 2), (b"a", 3), (b"b", 1)])
    again = Step(b"a", 2, 0)
    assert queue.rows_with(again) == 5
    queue.push(again)
    assert len(queue) == 3
    taken = [s for _ in range(3) for s in share(queue, 3)]
    assert [s.number for s in taken if s.session == b"a"] == [0, 1]
    assert any(s is again for s in taken)


def test_as_many_micro_batches_as_keep_every_stage_busy_and_never_more_than_sessions() -> None:
    assert group_limit(0, 3) == 1
    assert group_limit(2, 3) == 2
    assert group_limit(50, 3) == 4
    assert group_limit(50, 3, fixed=1) == 1
    assert group_limit(50, 3, fixed=9) == 9
    assert group_limit(2, 3, fixed=9) == 2
    assert group_limit(0, 3, fixed=9) == 1


@given(st.integers(1, 40), st.integers(1, 8))
def test_micro_batches_under_way_differ_by_one_session_at_most(active: int, groups: int) -> None:
    groups = min(active, groups)
    under_way: list[int] = []
    for _ in range(groups):
        under_way.append(fair_share(active, groups, under_way))
    assert sum(under_way) == active
    assert max(under_way) - min(under_way) <= 1
