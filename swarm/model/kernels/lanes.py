"""Where the rows of a micro-batch are in the pages of their Sessions, laid out on the card once for all Blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 32
"""Rows times heads of a key-value head that read the same keys together, where a Session has several rows."""


@dataclass(frozen=True)
class Lanes:
    """All of it on the card.

    Args:
        slots: where a row's key and value go, counted over the positions of all pages.
        tiles: first row, end row, row of `tables`: rows of one Session that follow each other, at most `tile_rows`.
        tables: a Session's pages in order of position; behind its last anything.
        reach: no row is at a position this far, or farther.
    """

    positions: Tensor  # [R] int64
    slots: Tensor  # [R] int64
    tiles: Tensor  # [T, 3] int32
    tables: Tensor  # [sessions, pages] int32
    tile_rows: int
    reach: int

    @classmethod
    def of(
        cls, spans: Sequence[tuple[int, int]], pages: Sequence[Sequence[int]], page: int, heads: int, positions: Tensor
    ) -> Lanes:
        """Of Sessions that follow each other in a micro-batch.

        Args:
            spans: each one's first position, and the one behind its last.
            pages: each one's pages.
            page: positions of a page.
            heads: that read one key-value head.
            positions: [R] int64 of all rows, on the card.
        """
        tile_rows = 1 if all(end - first == 1 for first, end in spans) else max(1, TILE // heads)
        slots: list[int] = []
        tiles: list[tuple[int, int, int]] = []
        for session, ((first, end), its) in enumerate(zip(spans, pages, strict=True)):
            start = len(slots) - first
            slots += [its[p // page] * page + p % page for p in range(first, end)]
            tiles += [(start + at, start + min(at + tile_rows, end), session) for at in range(first, end, tile_rows)]
        reach = max(end for _, end in spans)
        used = [list(its[: -(-end // page)]) for (_, end), its in zip(spans, pages, strict=True)]
        width = max(map(len, used))
        numbers = [*(n for tile in tiles for n in tile), *(n for its in used for n in [*its, *[0] * (width - len(its))])]
        both = torch.tensor(numbers, dtype=torch.int32, device=positions.device)
        where = torch.tensor(slots, dtype=torch.int64, device=positions.device)
        cut = 3 * len(tiles)
        return cls(positions, where, both[:cut].view(-1, 3), both[cut:].view(len(used), width), tile_rows, reach)
