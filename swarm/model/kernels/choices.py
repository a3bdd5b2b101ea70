"""What the routers of a Stage chose on a card: counted there, fetched now and then, so that no Step waits for it.

R: rows   E: experts   K: experts a row   B: Blocks whose choices stay on the card
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

FETCH_EVERY = 256
"""Micro-batches."""


class Chooser(Protocol):
    """A Block's router and its counts."""

    @property
    def picks(self) -> Tensor | None:
        """[FEW_ROWS, K] int64: what the rows of the last micro-batch chose; None where that is counted on the host."""
        ...

    @property
    def counts(self) -> list[int]:
        """[E] rows that chose each expert."""
        ...


class Choices:
    """Adds the last choices of some Blocks up."""

    def __init__(self, choosers: Sequence[Chooser]) -> None:
        near = [(c.picks, c.counts) for c in choosers]
        self._picks = [picks for picks, _ in near if picks is not None]
        self._counts = [counts for picks, counts in near if picks is not None]
        self._sums: Tensor | None = None
        self._since = 0

    def add(self, rows: int) -> None:
        """Count what the first `rows` rows chose."""
        if not self._picks:
            return
        chosen = torch.cat([picks[:rows].flatten() for picks in self._picks]).view(len(self._picks), -1)  # [B, R K]
        if self._sums is None:
            shape = len(self._picks), max(map(len, self._counts))
            self._sums = torch.zeros(shape, dtype=torch.int64, device=chosen.device)
        self._sums.scatter_add_(1, chosen, torch.ones_like(chosen))
        self._since += 1
        if self._since == FETCH_EVERY:
            self.fetch()

    def fetch(self) -> None:
        """Hand the sums on to the counts; waits for the card."""
        if self._sums is None:
            return
        for counts, sums in zip(self._counts, self._sums.tolist(), strict=True):
            for expert in range(len(counts)):
                counts[expert] += sums[expert]
        self._sums, self._since = None, 0
