"""Who waits to open a Session, and who is next: after a change of Plan those that go on come before those that are new.

Between clients it is fair: who has a hundred Sessions here and waits for more lets those in first who have fewer. Each turn
has a round, where the queue is at when it comes and one more for each Session that its client has (start-time fair queueing:
Goyal, Vin, Cheng 1996).

That a Session goes on is what its client says; nobody can prove it to a Worker that was started a moment ago. Who lies gains
no more than a place before new ones, for a while after a change, and no more places than the Plan has Sessions.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left, insort
from dataclasses import dataclass, field

from swarm.errors import Full
from swarm.worker.callers import Caller
from swarm.worker.epoch import Epoch

QUEUE_LENGTH = 1024
AFTER_S = 60.0
"""How long after an epoch began those that go on come first."""
HOLD_S = 2.0
"""How long new ones wait at an entry that knows none of those that go on, whatever room there is: so long may their return take."""


@dataclass(order=True)
class Turn:
    """One who waits: those that go on first, then round by round, then by when they came."""

    new: bool
    round: int
    arrival: int
    caller: Caller = field(compare=False)
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
        self._round = 0
        """Of the one that got room last."""
        self._queue: list[Turn] = []

    def __len__(self) -> int:
        return len(self._queue)

    def come(self, caller: Caller, has: int, open_in: int, epoch: Epoch | None, now: float) -> Turn:
        """The turn of one who comes now, which waits only once it entered. Raises Full.

        Args:
            has: Sessions of its client, open or waiting, but for this one.
            open_in: the epoch under which its Session was open, as its client says; 0: it is new.
            epoch: under which it wants to be open.
        """
        new = epoch is None or not self._goes_on(open_in, epoch, now)
        if new and len(self._queue) >= QUEUE_LENGTH:
            raise Full(f"{QUEUE_LENGTH} sessions wait already: try again later", self._name)
        held_back = epoch is not None and not open_in and not epoch.inherits and epoch.plan.follows > 0
        earliest = epoch.since + HOLD_S if epoch and held_back else 0.0
        begun = min([self._round, *(turn.round for turn in self._queue[:1])])
        return Turn(new, begun + has, next(self._arrivals), caller, earliest)

    def enter(self, turn: Turn) -> None:
        """Let it wait."""
        insort(self._queue, turn)

    def leave(self, turn: Turn) -> None:
        """It waits no more."""
        del self._queue[self.place(turn)]
        self.wake_first()

    def served(self, turn: Turn) -> None:
        """It got room."""
        self._round = max(self._round, turn.round)

    def callers(self) -> set[Caller]:
        """Whose turns wait."""
        return {turn.caller for turn in self._queue}

    def place(self, turn: Turn) -> int:
        """How many wait before it."""
        return bisect_left(self._queue, turn)

    def wake_first(self) -> None:
        """There may be room."""
        for turn in self._queue[:1]:
            turn.woken.set()

    def _goes_on(self, open_in: int, epoch: Epoch, now: float) -> bool:
        before = 0 < open_in < epoch.number and now < epoch.since + AFTER_S
        return before and sum(not turn.new for turn in self._queue) < epoch.plan.sessions
