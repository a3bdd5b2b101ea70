"""Which waiting Steps become the next micro-batch: pure decisions, values in, values out.

The entry Stage keeps several micro-batches of its Route under way at once, so that no Stage waits for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A Step that waits at the entry Stage."""

    @property
    def session(self) -> bytes: ...

    @property
    def serial(self) -> int: ...

    @property
    def num_rows(self) -> int: ...


W = TypeVar("W", bound=Waiting)


def group_limit(active_sessions: int, num_stages: int, fixed: int = 0) -> int:
    """How many micro-batches may be under way, never more than Sessions: what the Plan says, or one for each Stage and one more.

    Args:
        fixed: the Plan's own number; 0 where it leaves it open. The one more is for the client.
    """
    return max(1, min(active_sessions, fixed or num_stages + 1))


def fair_share(active_sessions: int, groups: int, under_way: Sequence[int]) -> int:
    """How many Sessions the next micro-batch may have, so that all of `groups` differ by one at most.

    Args:
        under_way: the Sessions of each micro-batch that is under way.
    """
    floor, larger = divmod(active_sessions, groups)
    return max(1, floor + (sum(n > floor for n in under_way) < larger))


class EntryQueue(Generic[W]):
    """Steps that wait at the entry Stage: one Step of a Session in a micro-batch, each Session's in order.

    Single tokens (running answers) and prompts take turns: a running answer waits for one micro-batch with prompt at most,
    a prompt for the tokens that waited before it. Among prompts, whose Session was served longest ago comes first.
    """

    def __init__(self) -> None:
        self._waiting: deque[W] = deque()
        self._turn = 0
        self._since: dict[bytes, int] = {}
        """Waiting Session → the turn in which it came, or was last served."""
        self._prompts_since = 0
        """The turn in which the prompts that wait were last served, or the first of them came."""

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, step: W) -> None:
        """Let a Step wait; one that waits already and is sent again waits once, in its old place."""
        for at, other in enumerate(self._waiting):
            if _same(other, step):
                self._waiting[at] = step
                return
        self._waiting.append(step)
        self._since.setdefault(step.session, self._turn)

    def rows_with(self, step: W) -> int:
        """Rows that would wait for a Step's Session with it: what a flood is measured by."""
        return step.num_rows + sum(s.num_rows for s in self._waiting if s.session == step.session and s.serial != step.serial)

    def remove(self, leave: Callable[[W], bool]) -> list[W]:
        """Take out and return the Steps for which `leave` is true."""
        gone = [s for s in self._waiting if leave(s)]
        if gone:
            self._waiting = deque(s for s in self._waiting if not leave(s))
            self._forget_absent()
        return gone

    def sessions(self) -> set[bytes]:
        return set(self._since)

    def take(self, sessions: int, chunk_rows: int, max_rows: int) -> list[W]:
        """The next micro-batch: a fair share of the waiting Sessions, and at most a chunk of prompt.

        Args:
            sessions: the most Sessions in it. Not all that wait: a group that took those of others would stay the larger one.
            chunk_rows: the most prompt rows in one micro-batch, so that a long prompt never stalls running answers for
                more than one chunk.
            max_rows: the most rows in all. A Step that exceeds either goes alone, so that none waits for ever.
        """
        taken: list[W] = []
        prompt_rows = rows = 0
        for step in self._in_turn():
            prompt = step.num_rows if step.num_rows > 1 else 0
            fits = rows + step.num_rows <= max_rows and (prompt_rows + prompt <= chunk_rows or not prompt_rows)
            if len(taken) < sessions and (fits or not taken):
                taken.append(step)
                rows += step.num_rows
                prompt_rows += prompt
        self._took(taken, prompt_rows > 0)
        return taken

    def _in_turn(self) -> list[W]:
        """The first waiting Step of each Session, in the order in which they may go."""
        heads: dict[bytes, W] = {}
        for step in self._waiting:
            heads.setdefault(step.session, step)
        ordered = sorted(heads.values(), key=lambda s: self._since[s.session])
        tokens = [s for s in ordered if s.num_rows == 1]
        prompts = [s for s in ordered if s.num_rows > 1]
        due = 1 if tokens and self._prompts_since < self._since[tokens[0].session] else 0
        return [*prompts[:due], *tokens, *prompts[due:]]

    def _took(self, taken: list[W], prompt: bool) -> None:
        self._turn += 1
        gone = {id(step) for step in taken}
        self._waiting = deque(s for s in self._waiting if id(s) not in gone)
        self._since.update((step.session, self._turn) for step in taken)
        self._forget_absent()
        if prompt or not any(s.num_rows > 1 for s in self._waiting):
            self._prompts_since = self._turn

    def _forget_absent(self) -> None:
        present = {s.session for s in self._waiting}
        self._since = {session: turn for session, turn in self._since.items() if session in present}


def _same(one: Waiting, other: Waiting) -> bool:
    return (one.serial, one.session) == (other.serial, other.session)
