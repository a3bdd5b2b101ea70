"""The KV pages of one model on this Worker, and the Sessions that use them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from swarm.errors import Gap
from swarm.model.cache import PagedCache
from swarm.model.holding import Move
from swarm.prefix_hash import EMPTY_HASH
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.sessions import Session, SessionTable, Verdict


@dataclass
class KVPool:
    """The KV pages of one model and dtype on this Worker, and the Sessions that use them. Outlives an epoch."""

    model_id: str
    cache: PagedCache
    table: SessionTable = field(default_factory=SessionTable)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a Session's state changes: the loop admits Steps, the compute thread fails them."""

    def open_session(
        self, session_id: bytes, positions: int, hashes: Sequence[int], blocks: range, lease_s: float, now: float
    ) -> int | None:
        """Open a Session, or renew it; how many of its positions these Blocks hold, or None where there is no room now.

        Args:
            hashes: entry i covers the first i of its token ids; of a new Session, what others left or share is found by them.
            now: of a monotonic clock, in seconds.
        """
        before = self.table.get(session_id)
        if before is not None:
            if not self.cache.reserve(session_id, positions):
                return None
            session = self.table.open(session_id, max(positions, before.positions), lease_s, now)
            with self.lock:  # the compute thread may be failing a Step of it
                return min(session.held_over(blocks), session.common_prefix(hashes))
        begins = hashes[:1] == [EMPTY_HASH]  # else it would have as its beginning what is the middle of another
        found = self.cache.open(session_id, positions, hashes if begins else (), blocks)
        if found is not None:
            session = self.table.open(session_id, positions, lease_s, now)
            session.adopt(hashes[: found + 1] if begins else [EMPTY_HASH], blocks)
        return found

    def admit(self, session: Session, header: pb.StepHeader, blocks: range) -> tuple[Verdict, int, tuple[Move, ...]]:
        """What is to be done with a Step, the Session's generation, and what its pages need before it is computed.

        Raises:
            Gap, Refused: see `Session.admit`. Gap with nothing held also where it writes over what others share with it, and
                there is no room for a copy: the Session is closed, to wait in the queue for that.
        """
        with self.lock:
            verdict = session.admit(blocks, header.serial, header.position, header.tokens, header.prefix_hash)
            generation = session.generation  # before the compute thread can fail the Step that this one builds on
            if verdict is not Verdict.RUN:
                return verdict, generation, ()
            moves = self.cache.write(session.id, header.position, session.hashes[header.position + 1 :])
            if moves is not None:
                return verdict, generation, moves
            session.under_way -= 1
            session.fail(header.serial, header.position)
        self.close_session(session.id)
        raise Gap(0, {0: EMPTY_HASH})

    def computed(self, session: Session, header: pb.StepHeader, blocks: range) -> None:
        """A Step is done: others may share the pages that it filled, unless later ones of the Session are under way."""
        size = self.cache.page_positions
        with self.lock:
            if session.serial != header.serial:
                return
            guessed = max(0, header.ask.rows - 1)  # a draft: the next Step may write others there
            end = min(header.position + len(header.tokens) - guessed, session.held_over(blocks)) // size
            first, session.known = session.known // size, max(session.known, end * size)
            hashes = session.hashes[first * size : end * size + 1]
        if end > first:
            self.cache.know(session.id, first, hashes, blocks)

    def drop_block(self, block: int) -> None:
        """Give a Block's pages back, and know that no Session has anything in them."""
        self.cache.drop_block(block)
        with self.lock:
            for session in self.table.all():
                session.held.pop(block, None)

    def close_session(self, session_id: bytes) -> bool:
        """Give a Session's pages back, now or when its last Step is done. True if they are free now."""
        session = self.table.get(session_id)
        if session is None:
            return True
        session.closing = True
        if session.under_way:
            return False
        self.table.remove(session_id)
        self.cache.release(session_id)
        return True
