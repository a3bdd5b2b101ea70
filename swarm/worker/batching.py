"""How much may be under way, and what the next micro-batch may have of it: pure decisions, values in, values out.

The entry Stage keeps several micro-batches of its Route under way at once, so that no Stage waits for another. Running
answers have places of their own, prompts what is left of them, and one at least: so a prompt costs each running answer one
chunk a token, and no more, whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarm.plan import PIECE_ROWS

STRETCH = 1.5
"""How much longer the time between two tokens of a running answer may become because of a prompt, as a share of itself."""
KEPT = 0.8
"""How much of what was measured before counts beside a new micro-batch."""


@dataclass(frozen=True)
class Group:
    """A micro-batch that is under way: of how many running answers, and how many rows of prompt."""

    answers: int
    prompt_rows: int = 0


@dataclass(frozen=True)
class Places:
    """How many micro-batches may be under way: with running answers, with prompt (one may have both), and in all."""

    answers: int
    prompts: int
    all: int

    @classmethod
    def of(cls, answering: int, num_stages: int, fixed: int = 0, outside: int = 1) -> Places:
        """For so many running answers.

        In all: what the Plan says, or one for each Stage and those that are outside; where no answer runs one a Stage and one
        more at least, so that each has a chunk while the next comes to it. Answers have as many as there are of them; prompts what
        is left, and at least one.

        Args:
            fixed: the Plan's own number; 0 where it leaves it open.
            outside: on their way between Stages and at clients, while every Stage has one; see `Around.outside`.
        """
        every = fixed or num_stages + outside
        answers = min(answering, every)
        every = every if answering else max(every, num_stages + 1)
        return cls(answers, max(1, every - answers), every)

    def free(self, under_way: Sequence[Group]) -> bool:
        return sum(group.answers + group.prompt_rows > 0 for group in under_way) < self.all

    def next_answers(self, answering: int, under_way: Sequence[Group]) -> int:
        """How many running answers the next micro-batch may have, so that all micro-batches differ by one at most."""
        groups = [group.answers for group in under_way if group.answers]
        if len(groups) >= self.answers:
            return 0
        floor, larger = divmod(answering, self.answers)
        return max(1, floor + (sum(n > floor for n in groups) < larger))

    def prompt_may_go(self, under_way: Sequence[Group], turns: int, waiting: bool) -> bool:
        """Whether the next micro-batch may have prompt, so that each running answer has as many chunks a token as prompts places.

        Args:
            turns: micro-batches with running answers since the last chunk, the one that had it included.
            waiting: whether a running answer's Step waits.
        """
        chunks = sum(group.prompt_rows > 0 for group in under_way)
        would_wait = waiting or any(group.answers for group in under_way)
        return chunks < self.prompts and not (would_wait and turns * self.prompts < self.answers)


def alone_rows(waiting: int, before: int, num_stages: int, start_rows: int, most: int) -> int:
    """Rows of the next chunk of a prompt that no running answer waits for.

    A chunk of c rows takes a Stage a + b c seconds. N rows in chunks of c are through S Stages after N/c (a + b c), and S - 1
    times a chunk more, while the Stages fill and empty: least near c = sqrt(N a / (b (S - 1))). On one Stage a chunk is as large
    as it may be. What is measured in a swarm is the Plan's, so that the same prompt on an idle swarm is always cut alike.

    Args:
        waiting: rows that are still to go, N.
        before: of the largest chunk under way; the next one need not be smaller, for the Stages wait for that one anyhow.
        start_rows: a / b, in rows.
        most: of the Plan.
    """
    if num_stages == 1:
        return most

    def rows_worth(chunk: int) -> int:  # the time beyond N b + (S - 1) a, in b
        return -(-waiting // chunk) * start_rows + (num_stages - 1) * max(before, min(chunk, waiting))

    sizes: list[int] = [*range(PIECE_ROWS, most, PIECE_ROWS), most]
    return min(sizes, key=rows_worth)


class BesideRows:
    """Rows of a prompt's next chunk beside running answers: as many as make their tokens `STRETCH` longer, by what was measured.

    Measured at the entry Stage, as its micro-batches come: seconds of one without prompt, and what a row of prompt adds.
    """

    def __init__(self) -> None:
        self.plain_s = 0.0
        """Of a micro-batch without prompt; 0 where none was measured."""
        self._row_s = 0.0

    def took(self, prompt_rows: int, seconds: float) -> None:
        """Note what the entry Stage took for a micro-batch with so many rows of prompt."""
        if not prompt_rows:
            self.plain_s = _mean(self.plain_s, seconds)
        elif self.plain_s and seconds > self.plain_s:
            self._row_s = _mean(self._row_s, (seconds - self.plain_s) / prompt_rows)

    def rows(self, num_stages: int, places: Places, start_rows: int, most: int) -> int:
        """The most rows of prompt in the next micro-batch.

        A running answer goes round in as many micro-batches' time as answers have places, or Stages, if those are more; on that
        way it waits for a chunk of every place that prompts have. Where that is one, the next chunk goes when the one before is
        through all Stages, and answers go round no quicker than that.

        Args:
            start_rows, most: of the Plan. Fewer rows than `start_rows` would take more than half of their time to start.
        """
        least = _whole(start_rows + PIECE_ROWS - 1)
        if not self.plain_s or not self._row_s:
            return min(most, least)
        round_s = max(places.answers, num_stages) * self.plain_s
        more_s = STRETCH * round_s / places.prompts
        if places.prompts == 1:
            more_s = min(more_s, (1 + STRETCH) * round_s / num_stages - self.plain_s)
        return min(most, max(least, _whole(more_s / self._row_s)))


def _whole(rows: float) -> int:
    """In whole pieces."""
    return int(rows) // PIECE_ROWS * PIECE_ROWS


def _mean(before: float, new: float) -> float:
    return KEPT * before + (1 - KEPT) * new if before else new
