"""Where the rows of a micro-batch are in the pages of their Sessions, for what is compiled (`parts.h`).

R: rows   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


class _Session(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 3), ("pages", _POINTER)]


class _Places(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 2), ("pointers", _POINTER * 5)]


@dataclass(frozen=True)
class Sessions:
    """Some Sessions of a micro-batch, laid out once for all Blocks."""

    each: ctypes.Array[_Session]
    pages: Sequence[Tensor]
    """Whose memory `each` points at."""

    @classmethod
    def of(cls, spans: Sequence[tuple[int, int, int]], pages: Sequence[Tensor]) -> Sessions:
        """Sessions by their pages [pages] int64.

        Args:
            spans: each one's first row, how many there are, and the position of the first.
        """
        each = (_Session * len(pages))()
        for session, span, its in zip(each, spans, pages, strict=True):
            session.sizes[:], session.pages = span, its.data_ptr()
        return cls(each, pages)


class Places(NamedTuple):
    """Where rows are in the pool of a Block."""

    sessions: Sessions
    keys: Tensor  # bf16 [all pages, page positions, KV, D]
    values: Tensor

    def turned(self, cos: Tensor, sin: Tensor) -> _Places:
        """With the angles that all rows of the micro-batch are turned by, fp32 [R, 1, D], contiguous, of `swarm.model.rope`."""
        each, memory = self.sessions.each, (cos, sin, self.keys, self.values)
        where = ctypes.addressof(each), *[m.data_ptr() for m in memory]
        return _Places((len(each), self.keys.shape[1]), where)


class BlockPlaces(NamedTuple):
    """The same in some Blocks at once: where the keys and values of each are."""

    sessions: Sessions
    page: int
    """Positions in a page."""
    kept: ctypes.Array[ctypes.c_void_p]  # [2 x Blocks]

    def turned(self, cos: Tensor, sin: Tensor) -> _Places:
        """See `Places.turned`."""
        each = self.sessions.each
        return _Places((len(each), self.page), (ctypes.addressof(each), cos.data_ptr(), sin.data_ptr(), None, None))
