"""What one Session has of a cache: its pages, in the order of its positions, and how much of them is filled."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Move:
    """At place `at` of a Session's pages, `target` takes the place of `source`; with what that holds, if `copied`."""

    at: int
    source: int
    target: int
    copied: bool


@dataclass(frozen=True)
class Laid:
    """Pages as they are read and written."""

    pages: tuple[int, ...]
    device: torch.device
    run: int  # pages from the first on that lie side by side

    @classmethod
    def of(cls, pages: Iterable[int], device: torch.device) -> Laid:
        pages = tuple(pages)
        run = next((i for i in range(1, len(pages)) if pages[i] != pages[i - 1] + 1), len(pages))
        return cls(pages, device, run)

    @cached_property
    def index(self) -> Tensor:
        """[pages] int64: the same on the device. Copied when it is first read, on the thread that computes: a card has it wait."""
        return torch.tensor(self.pages, dtype=torch.int64, device=self.device)


@dataclass
class Holding:
    """One Session's pages.

    Which they are is decided when a Step is admitted, in `pages`; what is computed before that Step goes on with the old ones:
    `laid` follows when its turn comes.
    """

    pages: list[int]
    laid: Laid
    held: dict[int, int] = field(default_factory=dict)
    """Block → positions that are filled."""
    coming: tuple[Move, ...] = ()
    """What the Session's first Step has to do."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """`laid` grows on one thread and is changed on another."""

    @classmethod
    def of(cls, pages: Sequence[int], device: torch.device) -> Holding:
        return cls(list(pages), Laid.of(pages, device))

    def grow(self, pages: Sequence[int]) -> None:
        """Have more pages."""
        self.pages += pages
        with self._lock:
            self.laid = Laid.of((*self.laid.pages, *pages), self.laid.device)

    def decide(self, targets: Sequence[int], first: int, shared: Sequence[int], copied: bool) -> tuple[Move, ...]:
        """Have `targets` in the places `shared`, from now on; of the one in place `first` with what was there, if `copied`."""
        moves = tuple(Move(at, self.pages[at], to, copied and at == first) for at, to in zip(shared, targets, strict=True))
        for move in moves:
            self.pages[move.at] = move.target
        return moves

    def follow(self, moves: Sequence[Move]) -> None:
        """Read and write the pages that were decided on."""
        with self._lock:
            pages = list(self.laid.pages)
            for move in moves:
                pages[move.at] = move.target
            self.laid = Laid.of(pages, self.laid.device)
