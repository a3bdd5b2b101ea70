"""Who talks to this Worker, and what each one has here at once: no client takes what all share, and its errors say so.

A client is its certificate or, without a key, its connection. What it has is forgotten with the last stream, Step or Session
that belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from swarm.errors import Full
from swarm.wire.whose import Context, whose
from swarm.worker.outbox import Pile

STREAMS = 32
"""Of one client on one Worker; a program that chats has two for each Route and each Plan that it knows."""
SESSIONS = 256
"""Of one client on one entry Worker, open or waiting for room, or as many as the Plan has if those are more."""
WAITING_ROWS = 2**20
"""Tokens of one client's Steps that wait at an entry Stage."""
WAITING_BYTES = 64 * 2**20
"""What those Steps take, with all that they ask."""
ABANDONED_S = 30.0
"""How long the Sessions of a client are kept that has no stream here: it may come back after its connection broke."""
CROWDED_S = 3.0
"""And how long those of them that are more than its share, where others wait for room."""


@dataclass(eq=False)
class Caller:
    """One client, and what of its own is here now."""

    where: str
    """The Worker, for messages."""
    streams: int = 0
    rows: int = 0
    num_bytes: int = 0
    opening: set[bytes] = field(default_factory=set)
    """Sessions that are being opened, or wait for room."""
    pile: Pile = field(default_factory=Pile)
    """What it has not read, on all of its streams."""

    @contextmanager
    def stream(self) -> Iterator[None]:
        """One more stream, until the block ends. Raises Full."""
        if self.streams >= STREAMS:
            raise Full(f"this client has {STREAMS} streams here and may have no more: close some programs", self.where)
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def check_waiting(self, rows: int, num_bytes: int) -> None:
        """Raise Full unless a Step of so many rows and bytes may wait, too."""
        if self.rows + rows > WAITING_ROWS or self.num_bytes + num_bytes > WAITING_BYTES:
            raise Full(
                f"this client has {self.rows} tokens ({self.num_bytes} bytes) waiting here, and one may have {WAITING_ROWS} "
                f"({WAITING_BYTES}): wait for answers before sending more",
                self.where,
            )

    @contextmanager
    def session(self, name: bytes, opened: set[bytes], planned: int) -> Iterator[None]:
        """Around the opening of one more Session. Raises Full where it has as many as one may have.

        Args:
            opened: those of its Sessions that are open.
            planned: Sessions that the Plan has in all.
        """
        if len((opened | self.opening) - {name}) >= (most := max(SESSIONS, planned)):
            raise Full(f"this client has {most} sessions here and may have no more: close some", self.where)
        self.opening.add(name)
        try:
            yield
        finally:
            self.opening.discard(name)


class Callers:
    """The clients that have something here. Lives on the loop's thread.

    Args:
        where: the Worker's name.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._known: WeakValueDictionary[str, Caller] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, context: Context) -> Caller:
        """Whose call it is."""
        return self.named(whose(context))

    def named(self, name: str) -> Caller:
        """The client of that name; a new one where it has nothing here."""
        if (caller := self._known.get(name)) is None:
            caller = self._known[name] = Caller(self._where)
        return caller
