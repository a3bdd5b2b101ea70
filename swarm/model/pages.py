"""Which KV pages are free, kept as runs so that a Session's pages lie side by side where they can."""

from __future__ import annotations

from bisect import bisect_left


class Pages:
    """Free pages out of `count`, as disjoint runs `(first, end)` in ascending order that never touch."""

    def __init__(self, count: int) -> None:
        self._runs: list[tuple[int, int]] = [(0, count)] if count else []
        self.free = count

    def take(self, count: int, after: int | None = None) -> list[int] | None:
        """`count` pages, or None where fewer are free.

        Best first: those right behind page `after`; the smallest run that holds them all; pieces of the largest runs.
        """
        if count > self.free:
            return None
        taken: list[int] = []
        while len(taken) < count:
            first, end = self._choose(count - len(taken), after)
            end = min(end, first + count - len(taken))
            self._cut(first, end)
            taken += range(first, end)
            after = None
        return taken

    def give(self, pages: list[int]) -> None:
        """Take `pages` back."""
        for page in pages:
            self._give_one(page)
        self.free += len(pages)

    def _choose(self, count: int, after: int | None) -> tuple[int, int]:
        if after is not None:
            at = bisect_left(self._runs, (after + 1, 0))
            if at < len(self._runs) and self._runs[at][0] == after + 1 and self._runs[at][1] - after - 1 >= count:
                return self._runs[at]
        fitting = [run for run in self._runs if run[1] - run[0] >= count]
        return min(fitting, key=_length) if fitting else max(self._runs, key=_length)

    def _cut(self, first: int, end: int) -> None:
        """Take `first` to `end`, the beginning of a run, out of it."""
        at = bisect_left(self._runs, (first, end))
        run_end = self._runs[at][1]
        self._runs[at : at + 1] = [(end, run_end)] if end < run_end else []
        self.free -= end - first

    def _give_one(self, page: int) -> None:
        at = bisect_left(self._runs, (page, page))
        first, end = page, page + 1
        if at < len(self._runs) and self._runs[at][0] == end:
            end = self._runs.pop(at)[1]
        if at and self._runs[at - 1][1] == first:
            at -= 1
            first = self._runs.pop(at)[0]
        self._runs.insert(at, (first, end))


def _length(run: tuple[int, int]) -> int:
    return run[1] - run[0]
