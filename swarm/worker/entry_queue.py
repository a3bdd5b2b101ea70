"""The Steps that wait at the entry Stage, and which of them go together: values in, values out.

Running answers (one new token, or a draft) come with every micro-batch, a fair share of them; prompts fill what is left of
its rows. A prompt waits here in pieces, which are put together again: only the entry Stage knows how many rows pay now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar


class Waiting(Protocol):
    """A Step that waits at the entry Stage."""

    @property
    def session(self) -> bytes: ...

    @property
    def serial(self) -> int: ...

    @property
    def num_rows(self) -> int: ...

    @property
    def answering(self) -> bool:
        """Whether it is a running answer's, no part of a prompt."""
        ...

    def goes_on(self, before: Self) -> bool:
        """Whether it may be one Step with the one before it."""
        ...

    def overtakes(self, before: Self) -> bool:
        """Whether what another one of its Session computes would be forgotten with it."""
        ...

    def counts(self, times: int) -> None:
        """Told when it waits (1), and when it waits no more (-1)."""
        ...


W = TypeVar("W", bound=Waiting)


@dataclass
class _Line(Generic[W]):
    """The Steps of one Session, by serial, in the order in which they came."""

    since: int
    """The turn in which the first came, or was last served."""
    steps: dict[int, W] = field(default_factory=dict)
    rows: int = 0

    @property
    def head(self) -> W:
        return next(iter(self.steps.values()))

    def put(self, step: W) -> None:
        self.rows += step.num_rows - self.rows_of(step.serial)
        if step.serial in self.steps:
            self.steps[step.serial].counts(-1)
        self.steps[step.serial] = step
        step.counts(1)

    def rows_of(self, serial: int) -> int:
        return self.steps[serial].num_rows if serial in self.steps else 0

    def take(self, step: W) -> None:
        self.rows -= self.steps.pop(step.serial).num_rows
        step.counts(-1)


@dataclass
class _Filling(Generic[W]):
    """A micro-batch while it is put together."""

    answers: int
    run_rows: int
    prompt_rows: int
    max_rows: int
    taken: list[list[W]] = field(default_factory=list)
    rows: int = 0
    rows_of_prompts: int = 0

    def take(self, line: _Line[W]) -> bool:
        """Take what fits of a Session: a running answer's Step, or as many pieces of a prompt as fit. False where none does."""
        answering, run, rows = line.head.answering, list[W](), 0
        for step in line.steps.values():
            rows += step.num_rows
            if run and (answering or not step.goes_on(run[-1]) or rows > self.run_rows):
                break
            if not self._fits(step.num_rows, answering, bool(run)):
                break
            run.append(step)
            self.rows += step.num_rows
            self.rows_of_prompts += 0 if answering else step.num_rows
            self.answers -= answering
        if run:
            self.taken.append(run)
        return bool(run)

    def _fits(self, rows: int, answering: bool, more: bool) -> bool:
        if self.rows + rows > self.max_rows and (self.taken or more):
            return False
        if answering:
            return self.answers > 0
        return self.rows_of_prompts + rows <= self.prompt_rows or not self.rows_of_prompts


class EntryQueue(Generic[W]):
    """Steps that wait: those of a Session in order, and of those that are ready the one served longest ago first."""

    def __init__(self) -> None:
        self._lines: dict[bytes, _Line[W]] = {}
        self._turn = 0
        self._prompt_is_due = False
        """No prompt fitted the last micro-batch, though it might have had one."""

    def __len__(self) -> int:
        return sum(len(line.steps) for line in self._lines.values())

    def push(self, step: W) -> None:
        """Let a Step wait; one that waits already and is sent again waits once, in its old place."""
        self._lines.setdefault(step.session, _Line(self._turn)).put(step)

    def overtaken(self, step: W) -> list[W]:
        """Take out and return what waits of a Step's Session and would be computed for nothing."""
        gone: list[W] = []
        if (line := self._lines.get(step.session)) is not None:
            while line.steps and step.overtakes(last := next(reversed(line.steps.values()))):
                line.take(last)
                gone.append(last)
            self._forget_empty()
        return gone

    def rows_with(self, step: W) -> int:
        """Rows that would wait for a Step's Session with it: what a flood is measured by."""
        line = self._lines.get(step.session)
        return step.num_rows + (line.rows - line.rows_of(step.serial) if line else 0)

    def remove(self, leave: Callable[[W], bool]) -> list[W]:
        """Take out and return the Steps for which `leave` is true."""
        gone = [step for line in self._lines.values() for step in line.steps.values() if leave(step)]
        for step in gone:
            self._lines[step.session].take(step)
        self._forget_empty()
        return gone

    def sessions(self) -> set[bytes]:
        return set(self._lines)

    def answering(self) -> set[bytes]:
        """Sessions whose next Step is a running answer's."""
        return {session for session, line in self._lines.items() if line.head.answering}

    def prompt_rows(self) -> int:
        """Rows of prompts, those of all pieces."""
        return sum(line.rows for line in self._lines.values() if not line.head.answering)

    def take(self, answers: int, run_rows: int, prompt_rows: int, max_rows: int) -> list[list[W]]:
        """The next micro-batch, Session by Session: each one's next Step, or pieces of prompt that become one.

        Args:
            answers: the most running answers in it. Not all that wait: a group that took those of others would stay larger.
            run_rows: the most rows of pieces of one Session that become one Step.
            prompt_rows: the most rows of prompts in all, so that they never stall running answers for longer than that; 0: none.
            max_rows: the most rows in all. A Step that exceeds either goes alone, so that none waits for ever.
        """
        filling: _Filling[W] = _Filling(answers, run_rows, prompt_rows, max_rows)
        lines = sorted(self._lines.values(), key=lambda line: line.since)
        running = [line for line in lines if line.head.answering] if answers else []
        prompts = [line for line in lines if not line.head.answering] if prompt_rows else []
        first = prompts[:1] if self._prompt_is_due else []
        served = [line for line in (*first, *running, *prompts[len(first) :]) if filling.take(line)]
        self._prompt_is_due = bool(prompts) and not filling.rows_of_prompts
        self._turn += 1
        for line, run in zip(served, filling.taken, strict=True):
            line.since = self._turn
            for step in run:
                line.take(step)
        self._forget_empty()
        return filling.taken

    def _forget_empty(self) -> None:
        self._lines = {session: line for session, line in self._lines.items() if line.steps}
