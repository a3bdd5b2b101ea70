"""Rows times a matrix of one or two planes of 4 bits, by products of whole numbers, where a C compiler was there (`dots.h`).

n: rows   N: outputs   K: inputs   G: groups of a row   S: shares of the groups (`swarm.model.quant.planes`)
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swarm.model.native.compiled import LANES, compiled
from swarm.model.quant import int4_layout
from swarm.model.quant.matrix_unit import matrix_unit

MOST_BESIDE = 4
"""Rows, where a CPU has a matrix unit: it is quicker with more; see docs/performance.md."""
GROUPS, GROUPS_OF_TWO = (32, 64, 128), (16, 32)
"""Inputs of a group, of one plane and of two."""
MOST_INPUTS = 1 << 15
"""A row that is alone lies on a thread's stack in whole numbers (`row.h`)."""
PART_ROWS = 64
"""Rows that a thread takes at a time."""
NUMBER_BYTES, FACTOR_BYTES = 2, 4
WIDE, WIDE_HEIGHT = 2, 64
"""What a CPU with AVX-512 says, and how high blocks are that it takes."""


class _Dots(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 7), ("pointers", ctypes.c_void_p * 8), ("shares", ctypes.c_int64)]


@dataclass(frozen=True)
class Dots:
    """The product, by as many threads as torch has."""

    functions: ctypes.CDLL
    height: int
    """Outputs of a block, as torch packs them here."""
    wide: bool
    """Whether by AVX-512 (with VNNI and VBMI) in place of AVX2."""
    most: int
    """Rows."""

    def takes(self, x: Tensor, packed: Tensor, group: int) -> bool:
        """Whether rows `x` [n, K] are to meet this plane of 4 bits [N, K / 2], or these two [2, N, K / 2], here."""
        few = 0 < x.shape[0] <= self.most and x.dtype is torch.bfloat16 and x.device.type == "cpu"
        return few and self.reads(packed, group)

    def reads(self, packed: Tensor, group: int) -> bool:
        """Whether a plane of 4 bits [N, K / 2], or two of them, lie as is expected here."""
        groups = GROUPS if packed.dim() == 2 else GROUPS_OF_TWO
        return group in groups and packed.shape[-2] % self.height == 0 and 2 * packed.shape[-1] <= MOST_INPUTS

    def product(self, x: Tensor, packed: Tensor, lines: Tensor) -> Tensor:
        """`x` times a matrix transposed: [n, N].

        Args:
            x: bf16 [n, K], contiguous.
            packed: uint8 [N, K / 2], as `swarm.model.quant.int4_layout` says; or [2, N, K / 2], the high plane first.
            lines: bf16 [G, N, 2], or [S, G / S, N, 2]: scale and zero.
        """
        out, room = x.new_empty(x.shape[0], lines.shape[-2]), _room(x, lines)
        self.functions.swarm_dots(ctypes.byref(self._task(x, packed, lines, out, room)), torch.get_num_threads())
        return out

    def expert(self, x: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
        """`x` [n, H] through a SwiGLU expert: [n, H].

        Args:
            first, second: codes and lines of w1 above w3 [2F, H], and of w2 [H, F].
        """
        both = x.new_empty(x.shape[0], first[1].shape[-2])
        gated, out = x.new_empty(x.shape[0], both.shape[1] // 2), x.new_empty(x.shape[0], second[1].shape[-2])
        assert gated.shape[1] % LANES == 0
        rooms = _room(x, first[1]), _room(gated, second[1])
        tasks = self._task(x, *first, both, rooms[0]), self._task(gated, *second, out, rooms[1])
        self.functions.swarm_expert(*map(ctypes.byref, tasks), torch.get_num_threads())
        return out

    def _task(self, x: Tensor, packed: Tensor, lines: Tensor, out: Tensor, room: Tensor) -> _Dots:
        (rows, inputs), outputs, groups = x.shape, lines.shape[-2], lines.shape[:-2].numel()
        assert x.is_contiguous() and packed.is_contiguous() and lines.is_contiguous() and x.dtype is lines.dtype is torch.bfloat16
        assert packed.shape[-2:] == (outputs, inputs // 2) and outputs % self.height == inputs % groups == 0
        low = packed[1].data_ptr() if packed.dim() == 3 else None
        numbers = room.data_ptr()
        scales = numbers + NUMBER_BYTES * rows * inputs
        where = (each.data_ptr() for each in (x, packed, lines, out))
        return _Dots(
            (rows, inputs, outputs, inputs // groups, self.height, self.wide, -(-rows // PART_ROWS)),
            (*where, numbers, scales, scales + FACTOR_BYTES * rows * groups, low),
            lines.shape[0] if lines.dim() == 4 else 1,
        )


def _room(x: Tensor, lines: Tensor) -> Tensor:
    """For rows `x` [n, K] in whole numbers, and a scale and a sum of each group of theirs."""
    groups = lines.shape[:-2].numel()
    return x.new_empty(x.shape[0], NUMBER_BYTES * x.shape[1] + 2 * FACTOR_BYTES * groups, dtype=torch.uint8)


@lru_cache
def dots() -> Dots | None:
    """What this CPU has; None where it has not, torch packs otherwise, or nothing was compiled."""
    quick, height = compiled(), int4_layout.block_rows()
    if quick is None or not hasattr(quick.functions, "swarm_has_dots") or not int4_layout.straight(height):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quick.functions.swarm_dots.argtypes = [pointer, number]
    quick.functions.swarm_expert.argtypes = [pointer, pointer, number]
    quick.functions.swarm_dots.restype = quick.functions.swarm_expert.restype = None
    kind = quick.functions.swarm_has_dots()
    unit = matrix_unit()
    most = MOST_BESIDE if unit and unit.packs else sys.maxsize
    return Dots(quick.functions, height, kind == WIDE and height == WIDE_HEIGHT, most) if kind else None
