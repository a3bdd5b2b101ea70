"""The KV pages of one model on this Worker, and the Sessions that use them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from swarm.model.cache import PagedCache
from swarm.worker.sessions import SessionTable


@dataclass
class KVPool:
    """The KV pages of one model and dtype on this Worker, and the Sessions that use them. Outlives an epoch."""

    model_id: str
    cache: PagedCache
    table: SessionTable = field(default_factory=SessionTable)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a Session's state changes: the loop admits Steps, the compute thread fails them."""

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
