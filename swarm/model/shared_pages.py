"""KV pages that several Sessions may have at once: counted, and kept for who comes next until their room is wanted.

A page is free, or some Sessions have it, or it is idle: nobody has it, but what it holds is known. The longest idle page
makes room first, and of a Session's pages the last before the first, since without those before it a page is of no use.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

from swarm.model.pages import Pages
from swarm.model.prefixes import Known, Prefixes


class SharedPages:
    """`count` pages, and what is known to be in them."""

    def __init__(self, count: int) -> None:
        self.prefixes = Prefixes()
        self._free = Pages(count)
        self._holders: Counter[int] = Counter()
        """Page → how many Sessions have it; without those that nobody has."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        """In the order in which they became idle."""

    @property
    def room(self) -> int:
        """Pages that can be taken: free and idle ones."""
        return self._free.free + len(self._idle)

    @property
    def idle(self) -> int:
        return len(self._idle)

    def holders(self, page: int) -> int:
        """How many Sessions have a page."""
        return self._holders[page]

    def take(self, count: int, after: int | None = None) -> list[int] | None:
        """`count` pages for one Session, or None where there is no room; nothing changes then. See `Pages.take`."""
        if count > self.room:
            return None
        while self._free.free < count:
            self._evict()
        taken = self._free.take(count, after)
        assert taken is not None, "there was room"
        self._holders.update(taken)
        return taken

    def share(self, pages: Sequence[int]) -> None:
        """One Session more has these pages."""
        self._holders.update(pages)
        for page in pages:
            self._idle.pop(page, None)

    def give(self, pages: Sequence[int]) -> None:
        """One Session less has these pages; in the order of their positions."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page]:
                continue
            del self._holders[page]
            if page in self.prefixes:
                self._idle[page] = None
            else:
                self._free.give([page])

    def know(self, known: Known) -> None:
        """Note what a page that a Session has is filled with, so that others may share it."""
        assert self._holders[known.page], "a Session filled it"
        self.prefixes.add(known)

    def _evict(self) -> None:
        page, _ = self._idle.popitem(last=False)
        self.prefixes.forget(page)
        self._free.give([page])
