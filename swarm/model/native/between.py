"""What a Block does to many rows of bf16 between products, a pass each, where a C compiler was there at installation (`between.h`).

R: rows   T: heads   D: head_dim   H: hidden   n: rows of one expert
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swarm.model.native.compiled import LANES, compiled
from swarm.model.native.one_row import one_row

HEAD_DIM = 32
"""What it wants the size of a head to be a multiple of."""
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


class _Turning(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 4), ("pointers", _POINTER * 4)]


class ShareOf(ctypes.Structure):
    """Rows that one expert is given: how many; and where their indices, weights and outputs are."""

    _fields_ = [("rows", _NUMBER), ("pointers", _POINTER * 3)]


class _Summing(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 3), ("pointers", _POINTER * 3)]


@dataclass(frozen=True)
class Part:
    """What one expert put out for some of the rows, and how much it counts for each."""

    index: Tensor  # int64 [n], ascending
    weight: Tensor  # fp32 [n, 1]
    outputs: Tensor  # bf16 [n, H]


@dataclass(frozen=True)
class Between:
    """The passes, by as many threads as torch has."""

    functions: ctypes.CDLL
    wide: bool
    """Whether by AVX-512 in place of AVX2."""

    def rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor | None:
        """`x` [R, T, D] turned by each row's angles; None where that is not done here.

        Args:
            cos, sin: fp32 [R, 1, D], the first half of the sines negated.
        """
        (rows, heads, dim), angles = x.shape, (cos, sin)
        apart = x.stride(0) if rows > 1 else heads * dim
        if not _are(torch.bfloat16, x) or x.stride()[1:] != (dim, 1) or dim % HEAD_DIM:
            return None
        if any(a.shape != (rows, 1, dim) or not a.is_contiguous() or not _are(torch.float32, a) for a in angles):
            return None
        out = x.new_empty(rows, heads, dim)
        where = (each.data_ptr() for each in (x, cos, sin, out))
        task = _Turning((rows, heads, dim, apart), tuple(where))
        self.functions.swarm_rotate(ctypes.byref(task), self.wide, torch.get_num_threads())
        return out

    def summed(self, parts: Sequence[Part], h: Tensor) -> Tensor | None:
        """Rows `h` [R, H] and each one's parts times their weights, added up in their order; None where that is not done here."""
        fits = h.shape[1] % LANES == 0 and _are(torch.bfloat16, h) and h.is_contiguous()
        if not fits or not all(_fits(part) for part in parts):
            return None
        shares = (ShareOf * len(parts))()
        for share, part in zip(shares, parts, strict=True):
            where = (each.data_ptr() for each in (part.index, part.weight, part.outputs))
            share.rows, share.pointers[:] = part.index.shape[0], list(where)
        return self.added_up(shares, len(parts), h)

    def added_up(self, shares: ctypes.Array[ShareOf], count: int, h: Tensor) -> Tensor:
        """The same of `count` shares that are laid out, all of bf16 and contiguous as is `h` [R, H]: [R, H]."""
        out = torch.empty_like(h)
        task = _Summing((*h.shape, count), (ctypes.addressof(shares), h.data_ptr(), out.data_ptr()))
        self.functions.swarm_sum(ctypes.byref(task), self.wide, torch.get_num_threads())
        return out


def _are(dtype: torch.dtype, x: Tensor) -> bool:
    return x.dtype is dtype and x.device.type == "cpu"


def _fits(part: Part) -> bool:
    of_a_kind = _are(torch.bfloat16, part.outputs) and _are(torch.float32, part.weight) and _are(torch.int64, part.index)
    return of_a_kind and all(each.is_contiguous() for each in (part.index, part.weight, part.outputs))


@lru_cache
def between() -> Between | None:
    """What this CPU has; None where it has not, or nothing was compiled."""
    quick, one = compiled(), one_row()
    if quick is None or one is None:
        return None
    for function in (quick.functions.swarm_rotate, quick.functions.swarm_sum):
        function.argtypes, function.restype = [_POINTER, _NUMBER, _NUMBER], None
    return Between(quick.functions, one.wide)
