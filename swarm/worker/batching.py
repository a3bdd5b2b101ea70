"""Which waiting Steps become the next micro-batch: pure decisions, values in, values out.

The entry Stage keeps several micro-batches of its Route under way at once, so that no Stage waits for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A Step that waits at the entry Stage."""

    @property
    def session(self) -> bytes: ...

    @property
    def num_rows(self) -> int: ...


W = TypeVar("W", bound=Waiting)


def group_limit(active_sessions: int, num_stages: int, fixed: int = 0) -> int:
    """How many micro-batches may be under way: one for each Stage and one for the client, never more than Sessions."""
    return fixed or max(1, min(active_sessions, num_stages + 1))


class EntryQueue(Generic[W]):
    """Steps that wait at the entry Stage, first come first served, one Step of a Session in a micro-batch."""

    def __init__(self) -> None:
        self._waiting: deque[W] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, step: W) -> None:
        self._waiting.append(step)

    def rows_of(self, session: bytes) -> int:
        """Rows that wait for one Session: what a flood is measured by."""
        return sum(s.num_rows for s in self._waiting if s.session == session)

    def remove(self, leave: Callable[[W], bool]) -> list[W]:
        """Take out and return the Steps for which `leave` is true."""
        gone = [s for s in self._waiting if leave(s)]
        if gone:
            self._waiting = deque(s for s in self._waiting if not leave(s))
        return gone

    def sessions(self) -> set[bytes]:
        return {s.session for s in self._waiting}

    def take(self, groups: int, chunk_rows: int, max_rows: int) -> list[W]:
        """The next micro-batch: a fair share of the waiting Sessions, and at most a chunk of prompt.

        Args:
            groups: micro-batches that the Sessions waiting here shall be spread over, this one included.
            chunk_rows: the most prompt rows in one micro-batch, so that a long prompt never stalls running answers for
                more than one chunk.
            max_rows: the most rows in all. A Step that exceeds either goes alone, so that none waits for ever.
        """
        share = -(-len(self.sessions()) // max(1, groups))
        taken: list[W] = []
        passed: deque[W] = deque()
        seen: set[bytes] = set()
        prompt_rows = rows = 0
        for step in self._waiting:
            prompt = step.num_rows if step.num_rows > 1 else 0
            fits = rows + step.num_rows <= max_rows and (prompt_rows + prompt <= chunk_rows or not prompt_rows)
            if len(taken) < share and step.session not in seen and (fits or not taken):
                taken.append(step)
                rows += step.num_rows
                prompt_rows += prompt
            else:
                passed.append(step)
            seen.add(step.session)
        self._waiting = passed
        return taken
