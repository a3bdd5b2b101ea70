"""Many rows times a matrix of bf16 on a CPU's matrix unit, where a C compiler was there at installation (`many.h`).

n: rows   t: tiles of 16 rows   N: outputs   K: inputs   H: hidden   F: ffn
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swarm.model.memory import TOGETHER
from swarm.model.native.compiled import compiled

FEWEST = 16
"""Rows; fewer are for other kernels."""
MOST_BYTES = 1 << 20
"""Of inputs that meet a matrix at once: they are to stay in a core's cache while it passes."""
MOST_ROWS = 512
"""That meet a matrix at once: what they are summed up to lies on a thread's stack (`many4.h`)."""
UNIT = 32
"""What it wants inputs and outputs to be a multiple of."""
PART_BYTES = 1 << 19
"""About so much of a matrix is read by one thread at a time."""


class _Many(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 4), ("pointers", ctypes.c_void_p * 5)]


@dataclass(frozen=True)
class ManyRows:
    """The product, by as many threads as torch has."""

    functions: ctypes.CDLL

    def takes(self, x: Tensor, w: Tensor) -> bool:
        """Whether rows `x` [n, K] are to meet this matrix [N, K] here."""
        many = x.shape[0] >= FEWEST and x.dtype is torch.bfloat16 and x.device.type == "cpu" and x.is_contiguous()
        return many and self.reads(w)

    def reads(self, w: Tensor) -> bool:
        """Whether a matrix is of a kind and shape that are expected here."""
        return w.dtype is torch.bfloat16 and w.is_contiguous() and w.shape[0] % UNIT == w.shape[1] % UNIT == 0

    def product(self, x: Tensor, w: Tensor) -> Tensor:
        """`x` [n, K] times a matrix [N, K] transposed: [n, N]."""
        out = x.new_empty(x.shape[0], w.shape[0])
        for rows in together(x.shape[0], w.shape[1]):
            pairs = _pairs(x[rows], w.shape[1])
            task = self._task(w, x[rows], pairs, out[rows])
            self.functions.swarm_many(ctypes.byref(task), torch.get_num_threads())
        return out

    def expert(self, x: Tensor, w13: Tensor, w2: Tensor) -> Tensor:
        """`x` [n, H] through a SwiGLU expert: [n, H].

        Args:
            w13: w1 above w3, [2F, H].
            w2: [H, F].
        """
        out = x.new_empty(x.shape[0], w2.shape[0])
        assert w13.shape[0] == 2 * w2.shape[1]
        for rows in together(x.shape[0], max(w13.shape[1], w2.shape[1])):
            pairs, gated = _pairs(x[rows], w13.shape[1]), _pairs(x[rows], w2.shape[1])
            first = self._task(w13, x[rows], pairs, None, gated)
            second = self._task(w2, x[rows], gated, out[rows])
            tasks = ctypes.byref(first), ctypes.byref(second)
            self.functions.swarm_many_expert(*tasks, torch.get_num_threads())
        return out

    def _task(self, w: Tensor, x: Tensor, pairs: Tensor, out: Tensor | None, gated: Tensor | None = None) -> _Many:
        assert x.is_contiguous() and x.dtype is w.dtype is torch.bfloat16 and self.reads(w)
        part = max(1, PART_BYTES // (2 * UNIT * w.shape[1]))
        where = [None if each is None else each.data_ptr() for each in (x, w, pairs, out, gated)]
        return _Many((x.shape[0], w.shape[1], w.shape[0], part), tuple(where))


def _pairs(x: Tensor, inputs: int) -> Tensor:
    """Room for as many rows as `x` has, in tiles."""
    return x.new_empty(-(-x.shape[0] // TOGETHER) * TOGETHER, inputs)


def together(rows: int, inputs: int) -> list[slice]:
    """Rows that meet a matrix at once."""
    tiles = -(-rows // TOGETHER)
    parts = max(-(-tiles * TOGETHER * inputs * 2 // MOST_BYTES), -(-tiles * TOGETHER // MOST_ROWS))
    step = -(-tiles // parts) * TOGETHER
    return [slice(at, min(at + step, rows)) for at in range(0, rows, step)]


@lru_cache
def many_rows() -> ManyRows | None:
    """What this CPU has; None where it has no such unit, the system does not allow it, or nothing was compiled."""
    quick = compiled()
    if quick is None or not hasattr(quick.functions, "swarm_has_tiles") or not quick.functions.swarm_has_tiles():
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quick.functions.swarm_many.argtypes = [pointer, number]
    quick.functions.swarm_many_expert.argtypes = [pointer, pointer, number]
    quick.functions.swarm_many.restype = quick.functions.swarm_many_expert.restype = None
    return ManyRows(quick.functions)
