"""What a Worker knows of each Session: which tokens it holds, which Step was last, until when it waits.

This is the idempotence of Steps (promise 1), decided on the loop when a Step is admitted and before it is computed:
a lower serial is dropped, an equal one answered again, a hash that does not match is a gap, and what lies behind the
Step's position is forgotten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from swarm.errors import Gap, Refused
from swarm.prefix_hash import EMPTY_HASH, extend_hash
from swarm.worker.callers import ABANDONED_S, CROWDED_S, Caller


class Verdict(Enum):
    """What is to be done with a Step."""

    RUN = "run"
    AGAIN = "again"
    """Its answer is known: send that."""
    DROP = "drop"
    """Out of date, or the same Step is being computed."""


@dataclass
class Session:
    """One Session on one Worker."""

    id: bytes
    positions: int
    """Reserved."""
    lease_s: float
    expires_at: float
    hashes: list[int] = field(default_factory=lambda: [EMPTY_HASH])
    """Entry i covers the first i token ids that went through here."""
    held: dict[int, int] = field(default_factory=dict)
    """Block → positions in its KV."""
    known: int = 0
    """Positions in whole pages that others may share."""
    serial: int = 0
    """Of the newest Step admitted."""
    answer: object | None = None
    """What that Step answered, once computed."""
    under_way: int = 0
    """Steps admitted and not finished."""
    generation: int = 0
    """Grows when a Step failed after it was admitted: what was admitted behind it must not run."""
    closing: bool = False
    ahead: tuple[int, ...] = ()
    """On the entry Stage, while the Session comes back: what each Stage of the Route held when it was opened."""
    seen_at: float = 0.0
    """When it was last opened, or sent a Step."""
    owner: Caller | None = None
    """Whose it is; None where it came here from the entry Stage."""

    def common_prefix(self, hashes: Sequence[int]) -> int:
        """Positions that these prefix hashes (entry i covers i tokens) share with what went through here."""
        low, high = 0, min(len(self.hashes), len(hashes)) - 1
        while low < high:  # equal hashes mean equal prefixes, so the shared ones come first
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.hashes[middle] == hashes[middle] else (low, middle - 1)
        return low

    def held_over(self, blocks: Iterable[int]) -> int:
        """Positions that all these Blocks hold."""
        return min((self.held.get(b, 0) for b in blocks), default=len(self.hashes) - 1)

    def truncate(self, position: int) -> None:
        """Forget what lies at `position` and behind it."""
        if position >= len(self.hashes) - 1:  # nothing does: no Block holds what did not go through here
            return
        del self.hashes[position + 1 :]
        self.held = {b: min(n, position) for b, n in self.held.items()}
        self.known = min(self.known, position)

    def adopt(self, hashes: Sequence[int], blocks: Iterable[int]) -> None:
        """Begin with what pages of others hold for these Blocks; `hashes`: entry i covers i tokens."""
        self.hashes = list(hashes)
        self.held = dict.fromkeys(blocks, len(self.hashes) - 1)

    def admit(self, blocks: range, serial: int, position: int, tokens: Sequence[int], prefix_hash: int) -> Verdict:
        """Decide about a Step, and count its tokens as held if it is to run.

        Raises:
            Gap: a Block does not hold the tokens before `position`.
            Refused: it goes beyond what the Session reserved.
        """
        if serial < self.serial:
            return Verdict.DROP
        if serial == self.serial:
            return Verdict.AGAIN if self.answer is not None else Verdict.DROP
        if position + len(tokens) > self.positions:
            raise Refused(f"positions {position} to {position + len(tokens)} go beyond the {self.positions} reserved")
        held = self.held_over(blocks)
        if position > held or self.hashes[position] != prefix_hash:
            raise Gap(held, self.landmarks(held))
        self.serial, self.answer = serial, None
        self.truncate(position)
        for token in tokens:
            self.hashes.append(extend_hash(self.hashes[-1], token))
        self.held.update(dict.fromkeys(blocks, position + len(tokens)))
        self.under_way += 1
        return Verdict.RUN

    def stages_for(self, position: int, rows: int, asked: bool) -> int:
        """Through how many Stages a Step goes; 0: all. What all Stages behind hold already, they need not compute again.

        Who asks something of a row has it computed everywhere, and is back.
        """
        if asked:
            self.ahead = ()
        lacking = [place for place, held in enumerate(self.ahead, start=1) if held < position + rows]
        return lacking[-1] if lacking and lacking[-1] < len(self.ahead) else 0

    def landmarks(self, held: int) -> dict[int, int]:
        """Some prefix hashes, dense near the end and sparse before: enough to find a common prefix within a factor."""
        spots, step = {held}, 1
        while held - step > 0:
            spots.add(held - step)
            step *= 2
        return {p: self.hashes[p] for p in sorted(spots)}

    def fail(self, serial: int, position: int) -> None:
        """A Step that was admitted at `position` was not computed: nothing from there on is held, and it may come again."""
        self.generation += 1
        self.truncate(min(position, len(self.hashes) - 1))
        if serial <= self.serial:
            self.serial, self.answer = max(0, serial - 1), None


class SessionTable:
    """The Sessions of one KV cache, with their leases. Times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session: bytes) -> Session | None:
        return self._sessions.get(session)

    def is_open(self, session: bytes) -> bool:
        found = self._sessions.get(session)
        return found is not None and not found.closing

    def find(self, session: bytes) -> Session:
        """The Session. Raises Gap with nothing held where it is unknown: never opened, closed, or its lease is over."""
        found = self._sessions.get(session)
        if found is None or found.closing:
            raise Gap(0, {0: EMPTY_HASH})
        return found

    def open(self, session: bytes, positions: int, lease_s: float, now: float) -> Session:
        """Make the Session, or renew the one that is there."""
        found = self._sessions.get(session)
        if found is None:
            found = self._sessions[session] = Session(session, positions, lease_s, now + lease_s)
        found.positions, found.lease_s, found.closing = positions, lease_s, False
        self.touch(found, now)
        return found

    def touch(self, session: Session, now: float) -> None:
        session.seen_at, session.expires_at = now, now + session.lease_s

    def remove(self, session: bytes) -> None:
        self._sessions.pop(session, None)

    def of(self, owner: Caller) -> set[bytes]:
        """A client's Sessions."""
        return {s.id for s in self._sessions.values() if s.owner is owner}

    def shorten(self, now: float, share: int) -> None:
        """Shorten the leases of those whose client has no stream here: it is gone, or comes back soon.

        Args:
            share: how many of a client's, those used last, are kept longest; the others make room soon.
        """
        gone: defaultdict[Caller, list[Session]] = defaultdict(list)
        for session in self._sessions.values():
            if session.owner is not None and not session.owner.streams:
                gone[session.owner].append(session)
        for sessions in gone.values():
            for place, session in enumerate(sorted(sessions, key=lambda s: s.seen_at, reverse=True)):
                session.expires_at = min(session.expires_at, now + (ABANDONED_S if place < share else CROWDED_S))

    def expired(self, now: float) -> list[Session]:
        """Sessions whose lease is over and that have nothing under way."""
        return [s for s in self._sessions.values() if s.expires_at < now and not s.under_way]

    def is_owned(self, session: bytes) -> bool:
        """Whether it is open, and was opened here by its client."""
        return self.is_open(session) and self._sessions[session].owner is not None

    def quiet(self, since: float) -> list[Session]:
        """Those of which nothing was seen from then on, and that have nothing under way."""
        return [s for s in self._sessions.values() if s.seen_at < since and not s.under_way]

    def all(self) -> list[Session]:
        return list(self._sessions.values())
