"""Attention of many rows of one Session on a CPU, where a C compiler was there at installation (`attend.h`).

n: rows   P: positions   NH: heads   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swarm.model.native.compiled import compiled

FEWEST = 16
"""Rows; fewer are for torch."""
MOST_POSITIONS = 6144
"""Scores of 32 rows lie on a thread's stack, 6 bytes each: 1.2 MB of the 2 MB or more that one has."""
HEAD_DIM, SPAN = 32, 32
"""What it wants the size of a head to be a multiple of, and positions that it takes together."""


class _Queries(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 9), ("scale", ctypes.c_float * 2), ("pointers", ctypes.c_void_p * 6)]


@dataclass(frozen=True)
class ManyQueries:
    """The product, by as many threads as torch has."""

    functions: ctypes.CDLL
    tiles: bool
    """Whether on the matrix unit."""

    def takes(self, q: Tensor, keys: Tensor, values: Tensor) -> bool:
        """Whether queries [n, NH, D] over keys and values [P, KV, D] are answered here."""
        dim = q.shape[2]
        fits = q.shape[0] >= FEWEST and keys.shape[0] <= MOST_POSITIONS and dim % HEAD_DIM == 0
        return fits and all(_lies_well(x, dim) for x in (q, keys, values))

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
        """Queries `q` [n, NH, D], the first at `position`, each over the positions up to its own; [n, NH, D], contiguous."""
        (rows, heads, dim), (positions, kv_heads, _) = q.shape, keys.shape
        assert positions == position + rows and values.shape == keys.shape and heads % kv_heads == 0
        out = q.new_empty(rows, heads, dim)
        room = q.new_empty(2, kv_heads, -(-positions // SPAN) * SPAN, dim)
        steps = (x.stride(0) for x in (q, keys, values))
        where = (x.data_ptr() for x in (q, keys, values, room[0], room[1], out))
        task = _Queries((rows, heads, kv_heads, dim, position, positions, *steps), (dim**-0.5, 0), tuple(where))
        self.functions.swarm_attend(ctypes.byref(task), self.tiles, torch.get_num_threads())
        return out


def _lies_well(x: Tensor, dim: int) -> bool:
    return x.dtype is torch.bfloat16 and x.device.type == "cpu" and x.stride()[1:] == (dim, 1)


@lru_cache
def many_queries() -> ManyQueries | None:
    """What this CPU has; None where it has neither, or nothing was compiled."""
    quick = compiled()
    if quick is None or not hasattr(quick.functions, "swarm_has_pairs") or not quick.functions.swarm_has_pairs():
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quick.functions.swarm_attend.argtypes = [pointer, number, number]
    quick.functions.swarm_attend.restype = None
    return ManyQueries(quick.functions, bool(quick.functions.swarm_has_tiles()))
