"""Several rows times a matrix of bf16 or of 8 bits on a CPU's vectors, where a C compiler was there at installation (`several.h`).

n: rows   N: outputs   K: inputs   H: hidden   F: ffn
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor

from swarm.model.native.compiled import LANES, compiled
from swarm.model.native.many_rows import many_rows

FEWEST = 2
"""Rows; one has a kernel of its own."""
INPUTS = 64
"""What it wants the inputs to be a multiple of."""
MOST_BYTES = 1 << 20
"""Of inputs that meet a matrix at once: they are to stay in a core's cache while it passes."""
MOST_ROWS = 256
"""That meet a matrix at once: what they are summed up to lies on a thread's stack."""
PART_BYTES = 1 << 18
"""About so much of a matrix is read by one thread at a time."""

Matrix = tuple[Tensor, Tensor | None]
"""bf16 [N, K] beside nothing, or int8 [N, K] beside scales, bf16 [N]."""


class Kind(IntEnum):
    """By what rows are multiplied. A CPU that has one has those before, too."""

    AVX2 = 0
    AVX512 = 1
    PAIRS = 2
    """AVX-512 with products of pairs of bf16."""

    @property
    def groups(self) -> tuple[int, int]:
        """Rows of a group, where there is one and where there are more (`several.h`)."""
        return (6, 6) if self is Kind.AVX2 else (8, 4)

    @property
    def laid(self) -> torch.dtype:
        """What is multiplied."""
        return torch.bfloat16 if self is Kind.PAIRS else torch.float32


class _Several(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 6), ("pointers", ctypes.c_void_p * 5)]


@dataclass(frozen=True)
class SeveralRows:
    """The product, by as many threads as torch has. A row's answer is the same beside any others."""

    functions: ctypes.CDLL
    kind: Kind

    def takes(self, x: Tensor, w: Tensor) -> bool:
        """Whether rows `x` [n, K] are to meet these numbers or codes [N, K] here."""
        return x.shape[0] >= FEWEST and x.dtype is torch.bfloat16 and x.device.type == "cpu" and self.reads(w)

    def reads(self, w: Tensor) -> bool:
        """Whether a matrix [N, K] is of a kind and shape that are expected here."""
        return w.dtype in (torch.bfloat16, torch.int8) and w.is_contiguous() and w.shape[1] % INPUTS == 0 and w.numel() > 0

    def product(self, x: Tensor, w: Tensor, scales: Tensor | None = None) -> Tensor:
        """`x` [n, K], contiguous, times a matrix transposed: [n, N]."""
        out = x.new_empty(x.shape[0], w.shape[0])
        for rows in self._together(x.shape[0], w.shape[1]):
            task = self._task(x[rows], (w, scales), out[rows])
            self.functions.swarm_several(ctypes.byref(task[0]), self.kind, torch.get_num_threads())
        return out

    def expert(self, x: Tensor, first: Matrix, second: Matrix) -> Tensor:
        """`x` [n, H], contiguous, through a SwiGLU expert: [n, H].

        Args:
            first, second: w1 above w3 [2F, H], and w2 [H, F].
        """
        out, ffn = x.new_empty(x.shape[0], second[0].shape[0]), second[0].shape[1]
        assert first[0].shape[0] == 2 * ffn and ffn % LANES == 0
        for rows in self._together(x.shape[0], max(x.shape[1], ffn)):
            some = x[rows]
            both, gated = some.new_empty(some.shape[0], 2 * ffn), some.new_empty(some.shape[0], ffn)
            tasks = self._task(some, first, both), self._task(gated, second, out[rows])
            each = (ctypes.byref(task) for task, _ in tasks)
            self.functions.swarm_several_expert(*each, self.kind, torch.get_num_threads())
        return out

    def _together(self, rows: int, inputs: int) -> list[slice]:
        """Rows that meet a matrix at once."""
        parts = max(-(-rows * inputs * self.kind.laid.itemsize // MOST_BYTES), -(-rows // MOST_ROWS))
        step = -(-rows // parts)
        return [slice(at, min(at + step, rows)) for at in range(0, rows, step)]

    def _task(self, x: Tensor, matrix: Matrix, out: Tensor) -> tuple[_Several, Tensor]:
        """What is asked for, and memory that it needs meanwhile."""
        (w, scales), (rows, inputs), outputs = matrix, x.shape, matrix[0].shape[0]
        assert x.is_contiguous() and x.dtype is torch.bfloat16 and self.reads(w) and w.shape[1] == inputs
        assert (w.dtype is torch.int8) == (scales is not None)
        assert scales is None or (scales.shape == (outputs,) and scales.dtype is torch.bfloat16 and scales.is_contiguous())
        laid = torch.empty(rows * inputs, dtype=self.kind.laid)
        where = [None if each is None else each.data_ptr() for each in (x, w, scales, laid, out)]
        part = max(1, PART_BYTES // (inputs * w.element_size()))
        return _Several((rows, inputs, outputs, part, *self.kind.groups), tuple(where)), laid


@lru_cache
def quickest() -> SeveralRows | None:
    """By what this CPU has; None where it has not, or nothing was compiled."""
    quick = compiled()
    if quick is None or not hasattr(quick.functions, "swarm_has_several") or not quick.functions.swarm_has_dots():
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quick.functions.swarm_several.argtypes = [pointer, number, number]
    quick.functions.swarm_several_expert.argtypes = [pointer, pointer, number, number]
    quick.functions.swarm_several.restype = quick.functions.swarm_several_expert.restype = None
    return SeveralRows(quick.functions, Kind(quick.functions.swarm_has_several()))


def several_rows() -> SeveralRows | None:
    """What computes here. None on a CPU with a matrix unit, where torch's product reads as quickly with a few rows as with one."""
    return quickest() if many_rows() is None else None
