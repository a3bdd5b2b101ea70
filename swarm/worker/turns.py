"""Who waits to open a Session, and who is next: after a change of Plan those that go on come before those that are new.

That a Session goes on is what its client says; nobody can prove it to a Worker that was started a moment ago. Who lies gains
no more than a place before new ones, for a while after a change, and no more places than the Plan has Sessions.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from swarm.errors import Full
from swarm.worker.epoch import Epoch

QUEUE_LENGTH = 1024
AFTER_S = 60.0
"""How long after an epoch began those that go on come first."""
HOLD_S = 2.0
"""How long new ones wait at an entry that knows none of those that go on, whatever room there is: so long may their return take."""
FIRST_EPOCH = 1
"""Before it nothing was open that could go on."""


@dataclass(order=True)
class Turn:
    """One who waits: those that go on first, then by when they came."""

    new: bool
    arrival: int
    earliest: float = field(compare=False)
    """Before that it gets no room, on the monotonic clock."""
    woken: asyncio.Event = field(default_factory=asyncio.Event, compare=False)


class Turns:
    """The queue.

    Args:
        name: the Worker's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._arrivals = itertools.count()
        self._queue: list[Turn] = []

    def __len__(self) -> int:
        return len(self._queue)

    def come(self, open_in: int, epoch: Epoch | None, now: float) -> Turn:
        """The turn of one who comes now, which waits only once it entered. Raises Full.

        Args:
            open_in: the epoch under which its Session was open, as its client says; 0: it is new.
            epoch: under which it wants to be open.
        """
        new = epoch is None or not self._goes_on(open_in, epoch, now)
        if new and len(self._queue) >= QUEUE_LENGTH:
            raise Full(f"{QUEUE_LENGTH} sessions wait already: try again later", self._name)
        held_back = epoch is not None and not open_in and not epoch.inherits and epoch.number > FIRST_EPOCH
        return Turn(new, next(self._arrivals), epoch.since + HOLD_S if epoch and held_back else 0.0)

    def enter(self, turn: Turn) -> None:
        """Let it wait."""
        insort(self._queue, turn)
        self._wake(self._queue[self.place(turn) + 1 :])  # they have another place now

    def leave(self, turn: Turn) -> None:
        """It waits no more."""
        del self._queue[self.place(turn)]
        self._wake(self._queue)

    def place(self, turn: Turn) -> int:
        """How many wait before it."""
        return bisect_left(self._queue, turn)

    def wake_first(self) -> None:
        """There may be room."""
        self._wake(self._queue[:1])

    def _goes_on(self, open_in: int, epoch: Epoch, now: float) -> bool:
        before = 0 < open_in < epoch.number and now < epoch.since + AFTER_S
        return before and sum(not turn.new for turn in self._queue) < epoch.plan.sessions

    @staticmethod
    def _wake(turns: Iterable[Turn]) -> None:
        for turn in turns:
            turn.woken.set()
