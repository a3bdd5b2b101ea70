"""Which KV pages hold which tokens: full pages, found by the hashes of all token ids up to each of their positions.

Example, pages of 4 positions: what begins with the tokens a b c d e f g h is in page 7 (a b c d) and, behind it, page 2
(e f g h). Who begins with a b c d e f x may have page 7, and a copy of page 2, of which the first two positions count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What one full page holds.

    Args:
        before: hash of all tokens before the page.
        hashes: entry i covers those and the first i + 1 tokens of the page.
        blocks: whose keys and values are in it.
    """

    page: int
    before: int
    hashes: tuple[int, ...]
    blocks: frozenset[int]


@dataclass(frozen=True)
class Found:
    """Pages that hold a prefix. The last may have more than that: who wants it needs a copy."""

    pages: tuple[int, ...] = ()
    positions: int = 0

    def whole(self, page_positions: int) -> tuple[int, ...]:
        """The pages of which every position counts."""
        return self.pages[: self.positions // page_positions]


class Prefixes:
    """Full pages by what they hold. A prefix is in one page only: the first that had it."""

    def __init__(self) -> None:
        self._by_page: dict[int, Known] = {}
        self._behind: dict[int, dict[int, Known]] = {}
        """Hash of all tokens before a page → hash with the page's own → the page."""

    def __len__(self) -> int:
        return len(self._by_page)

    def __contains__(self, page: int) -> bool:
        return page in self._by_page

    def holds(self, page: int, at: int, hashes: Sequence[int]) -> bool:
        """Whether a page has these tokens from its position `at` on; also where nothing is known of it."""
        known = self._by_page.get(page)
        return known is None or not hashes or known.hashes[at + len(hashes) - 1] == hashes[-1]

    def find(self, hashes: Sequence[int], blocks: Iterable[int], page_positions: int) -> Found:
        """The pages that hold the longest prefix, for all these Blocks.

        Args:
            hashes: entry i covers the first i tokens.
        """
        wanted, pages, at = frozenset(blocks), list[int](), 0
        while at + page_positions < len(hashes):
            known = self._behind.get(hashes[at], {}).get(hashes[at + page_positions])
            if known is None or not wanted <= known.blocks:
                break
            pages.append(known.page)
            at += page_positions
        more, page = self._part(hashes[at : at + page_positions + 1], wanted)
        return Found((*pages, page), at + more) if more else Found(tuple(pages), at)

    def _part(self, hashes: Sequence[int], wanted: frozenset[int]) -> tuple[int, int]:
        """The page that goes on longest as `hashes` do from their first on, and for how many positions."""
        here = self._behind.get(hashes[0], {}).values() if hashes else ()
        return max(((_shared(k.hashes, hashes[1:]), k.page) for k in here if wanted <= k.blocks), default=(0, -1))

    def add(self, known: Known) -> bool:
        """Note what a page holds; False where another one has that prefix already."""
        there = self._behind.get(known.before, {}).get(known.hashes[-1])
        if there is not None and there.page != known.page:
            return False
        if there is not None:
            known = Known(known.page, known.before, known.hashes, known.blocks | there.blocks)
        self.forget(known.page)
        self._by_page[known.page] = known
        self._behind.setdefault(known.before, {})[known.hashes[-1]] = known
        return True

    def forget(self, page: int) -> None:
        """The page holds something else from now on; nothing where nothing is known of it."""
        known = self._by_page.pop(page, None)
        if known is None:
            return
        siblings = self._behind[known.before]
        del siblings[known.hashes[-1]]
        if not siblings:
            del self._behind[known.before]

    def drop_block(self, block: int) -> None:
        """No page has this Block's keys and values any more."""
        for known in list(self._by_page.values()):
            if block in known.blocks:
                self.forget(known.page)
                self.add(Known(known.page, known.before, known.hashes, known.blocks - {block}))


def _shared(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many hashes from the first on are equal: once two differ, all further ones do."""
    most = min(len(ours), len(theirs))
    return bisect_left(range(most), True, key=lambda i: ours[i] != theirs[i])
