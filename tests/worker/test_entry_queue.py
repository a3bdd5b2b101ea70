"""Which Steps become a micro-batch: fair, in order, bounded, and never none for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from hypothesis import given
from hypothesis import strategies as st

from swarm.worker.entry_queue import EntryQueue

CHUNK, MOST = 8, 12


@dataclass(frozen=True)
class Step:
    session: bytes
    num_rows: int
    number: int
    piece: bool = False
    position: int | None = None

    @property
    def serial(self) -> int:
        return self.number

    @property
    def answering(self) -> bool:
        return self.num_rows == 1

    def goes_on(self, before: Self) -> bool:
        return before.piece

    def overtakes(self, before: Self) -> bool:
        return self.position is not None and before.position is not None and self.position <= before.position

    def counts(self, times: int) -> None:
        """Nobody counts here."""


steps = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(1, 2 * MOST), st.booleans()), max_size=30)


def taken_from(queue: EntryQueue[Step], answers: int = 9, prompt_rows: int = CHUNK) -> list[Step]:
    return [step for run in queue.take(answers, MOST, prompt_rows, MOST) for step in run]


def queue_of(*drawn: tuple[bytes, int] | tuple[bytes, int, bool]) -> EntryQueue[Step]:
    queue: EntryQueue[Step] = EntryQueue()
    for number, (session, rows, *piece) in enumerate(drawn):
        queue.push(Step(session, rows, number, *piece))
    return queue


@given(steps, st.integers(1, 5))
def test_every_step_is_taken_once_each_sessions_in_order_and_none_waits_for_ever(
    drawn: list[tuple[bytes, int, bool]], answers: int
) -> None:
    queue, taken = queue_of(*drawn), list[Step]()
    while len(queue):
        runs = queue.take(answers, MOST, CHUNK, MOST)
        batch = [step for run in runs for step in run]
        assert batch, "Steps wait, and none is taken"
        assert len({run[0].session for run in runs}) == len(runs), "two Steps of a Session in one micro-batch"
        assert all(step.piece for run in runs for step in run[:-1]), "what is no piece went together with the next"
        assert len(batch) == 1 or sum(s.num_rows for s in batch) <= MOST
        assert sum(run[0].answering for run in runs) <= answers
        taken += batch
    assert sorted(s.number for s in taken) == list(range(len(drawn)))
    for session in {s.session for s in taken}:
        numbers = [s.number for s in taken if s.session == session]
        assert numbers == sorted(numbers)


def test_running_answers_and_a_prompt_share_a_micro_batch() -> None:
    queue = queue_of((b"a", CHUNK), (b"b", CHUNK), (b"c", 1))
    assert {s.session for s in taken_from(queue)} == {b"a", b"c"}
    assert [s.session for s in taken_from(queue)] == [b"b"]


def test_pieces_of_a_prompt_go_together_as_far_as_they_may() -> None:
    queue = queue_of(*[(b"a", 2, True)] * 5, (b"a", 1))
    assert [[s.number for s in run] for run in queue.take(9, MOST, 6, MOST)] == [[0, 1, 2]]
    assert [[s.number for s in run] for run in queue.take(0, 6, MOST, MOST)] == [[3, 4, 5]]


def test_prompts_of_several_sessions_go_together_though_each_is_cut() -> None:
    queue = queue_of(*[(b"a", 2, True)] * 3, (b"b", 3), (b"c", 6))
    assert [[s.number for s in run] for run in queue.take(0, 4, CHUNK, MOST)] == [[0, 1], [3]]


def test_where_no_prompt_may_go_answers_go_alone_and_where_no_answer_may_a_prompt_does() -> None:
    queue = queue_of((b"a", CHUNK), (b"c", 1), (b"d", 1))
    assert [s.session for s in taken_from(queue, answers=1, prompt_rows=0)] == [b"c"]
    assert [s.session for s in taken_from(queue, answers=0)] == [b"a"]


def test_a_long_prompt_does_not_keep_a_running_answer_waiting_for_more_than_a_chunk() -> None:
    queue = queue_of(*[(b"a", CHUNK)] * 6, (b"b", 1))
    assert b"b" in {s.session for s in taken_from(queue)}


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(2, MOST))
def test_neither_running_answers_nor_prompts_starve_while_the_others_go_on(
    answers: int, prompts: int, share: int, rows: int
) -> None:
    queue: EntryQueue[Step] = EntryQueue()
    waits: dict[bytes, int] = {}
    running, long = [b"d%d" % i for i in range(answers)], [b"p%d" % i for i in range(prompts)]
    for number, session in enumerate(long * 40):
        queue.push(Step(session, rows, number))
    for turn in range(40):  # each answer's next token comes as soon as the one before was served
        for session in set(running) - queue.sessions():
            queue.push(Step(session, 1, turn))
        batch = taken_from(queue, share)
        for session in running + long:
            waits[session] = 0 if session in {s.session for s in batch} else waits.get(session, 0) + 1
            most = 2 * -(-answers // share) if session in running else 2 * prompts
            assert waits[session] <= most, f"{session!r} still waits in turn {turn}"


def test_prompts_go_round_by_round() -> None:
    queue = queue_of(*[(b"a", CHUNK)] * 3, *[(b"b", CHUNK)] * 2)
    assert [s.session for _ in range(5) for s in taken_from(queue)] == [b"a", b"b", b"a", b"b", b"a"]


def test_steps_that_leave_are_gone_and_no_others() -> None:
    queue = queue_of((b"a", 1), (b"b", 2), (b"a", 3))
    assert queue.prompt_rows() == 2
    assert [s.number for s in queue.remove(lambda s: s.session == b"a")] == [0, 2]
    assert queue.sessions() == {b"b"}
    assert queue.rows_with(Step(b"b", 1, 7)) == 3
    assert queue.rows_with(Step(b"a", 1, 7)) == 1


def test_a_step_that_waits_and_is_sent_again_waits_once_in_its_old_place() -> None:
    queue = queue_of((b"a", 2), (b"a", 3), (b"b", 1))
    again = Step(b"a", 2, 0)
    assert queue.rows_with(again) == 5
    queue.push(again)
    assert len(queue) == 3
    taken = [s for _ in range(3) for s in taken_from(queue)]
    assert [s.number for s in taken if s.session == b"a"] == [0, 1]
    assert any(s is again for s in taken)


def test_what_waits_and_would_be_forgotten_with_a_newer_step_is_taken_out_and_nothing_else() -> None:
    queue: EntryQueue[Step] = EntryQueue()
    mine, others = [Step(b"a", 4, at, position=4 * at) for at in range(4)], [Step(b"b", 4, at, position=4 * at) for at in range(2)]
    for step in (*mine, *others):
        queue.push(step)
    assert queue.overtaken(Step(b"a", 4, 9, position=16)) == []
    assert queue.overtaken(Step(b"a", 4, 9, position=8)) == mine[:1:-1]
    assert queue.overtaken(Step(b"a", 4, 9, position=0)) == mine[1::-1]
    assert [step for _ in others for step in taken_from(queue)] == others and not len(queue)
