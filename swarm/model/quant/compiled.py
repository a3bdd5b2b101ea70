"""What is compiled of unpacking, where a C compiler was there when swarm was installed (`tile.c`).

n: rows   N: outputs   b: blocks of a tile   h: rows of a block   K: inputs   G: groups of a row   S: shares of the groups
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

NAME = "swarm.model.quant.tile"
HEIGHTS = (32, 64)
"""Of a tile's blocks."""
LANES = 16
"""Inputs that are unpacked at once."""
TILED_ROWS = range(2, 257)
"""So many rows are quicker by the matrix unit than by torch's product, or unpacked; see docs/performance.md."""
TILED_GROUPS = (32, 64, 128)
TILED_BLOCK = 64


class _Task(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 6), ("pointers", ctypes.c_void_p * 6)]


@dataclass(frozen=True)
class Compiled:
    """Each tile in one pass, into bf16."""

    functions: ctypes.CDLL
    has_tiles: bool = False
    """Whether this CPU has a matrix unit for bf16, and the system lets it be used."""

    @classmethod
    def at(cls, path: Path) -> Compiled:
        """The functions of a shared object in a file. Raises OSError where it does not fit this machine."""
        functions = ctypes.CDLL(str(path))
        pointer = ctypes.c_void_p
        functions.swarm_grouped.argtypes = [pointer, pointer, pointer, pointer, pointer]
        functions.swarm_grouped.restype = None
        if not hasattr(functions, "swarm_product"):
            return cls(functions)
        functions.swarm_product.argtypes, functions.swarm_product.restype = [pointer], None
        return cls(functions, bool(functions.swarm_has_tiles()))

    def takes(self, height: int, out: Tensor) -> bool:
        """Whether blocks so high can be unpacked to where `out` is."""
        return height in HEIGHTS and out.dtype is torch.bfloat16 and out.device.type == "cpu"

    def grouped(self, planes: Sequence[Tensor], lines: Tensor, out: Tensor) -> None:
        """One or two planes of codes with their scales and zeros.

        Args:
            planes: uint8 [b, K, h / 2] each, contiguous, the high one first.
            lines: bf16 [S, G / S, b * h, 2], some rows of a contiguous tensor.
            out: bf16 [b * h, K], rows may have gaps between them.
        """
        blocks, inputs, half = planes[0].shape
        shares, groups, rows, _ = lines.shape
        stride = lines.stride(1) // 2
        assert all(p.is_contiguous() and p.shape == planes[0].shape for p in planes) and out.stride(1) == 1
        assert lines.stride() == (groups * 2 * stride, 2 * stride, 2, 1) or shares * groups == 1
        assert lines.dtype is out.dtype is torch.bfloat16 and rows == 2 * half * blocks == out.shape[0]
        assert inputs == out.shape[1] and inputs % (shares * groups * LANES) == 0
        sizes = (ctypes.c_int64 * 7)(blocks, inputs, 2 * half, shares * groups, shares, stride, out.stride(0))
        second = planes[1].data_ptr() if len(planes) == 2 else None
        self.functions.swarm_grouped(planes[0].data_ptr(), second, lines.data_ptr(), out.data_ptr(), sizes)

    def multiplies(self, x: Tensor, packed: Tensor, group: int) -> bool:
        """Whether rows `x` [n, K] are to meet this plane in 4 bits on the matrix unit."""
        return (
            self.has_tiles
            and x.dtype is torch.bfloat16
            and x.device.type == "cpu"
            and x.shape[0] in TILED_ROWS
            and group in TILED_GROUPS
            and packed.shape[0] % TILED_BLOCK == 0
        )

    def product(self, x: Tensor, packed: Tensor, lines: Tensor, out: Tensor, blocks: slice) -> None:
        """Some blocks of `TILED_BLOCK` outputs of `x` times a plane in 4 bits transposed, into those of `out`.

        Args:
            x: bf16 [n, K], contiguous; n at most 16, or a multiple of it.
            packed: uint8 [N, K / 2].
            lines: bf16 [G, N, 2], contiguous: scale and zero.
            out: bf16 [n, N], contiguous.
        """
        (rows, inputs), (groups, outputs, _) = x.shape, lines.shape
        assert all(each.is_contiguous() for each in (x, packed, lines, out)) and (rows <= LANES or rows % LANES == 0)
        assert packed.shape == (outputs, inputs // 2) and out.shape == (rows, outputs) and 0 <= blocks.start <= blocks.stop
        assert blocks.stop * TILED_BLOCK <= outputs and inputs // groups in TILED_GROUPS and inputs % groups == 0
        room = torch.empty(rows * (groups + TILED_BLOCK), dtype=torch.float32)
        sums, totals = room[: rows * groups], room[rows * groups :]
        pointers = (each.data_ptr() for each in (x, packed, lines, sums, totals, out))
        task = _Task((rows, inputs, outputs, inputs // groups, blocks.start, blocks.stop), tuple(pointers))
        self.functions.swarm_product(ctypes.byref(task))


@lru_cache
def compiled() -> Compiled | None:
    """What was compiled; None where there was no compiler, or on another kind of machine than that one."""
    spec = find_spec(NAME)
    if spec is None or spec.origin is None:
        return None
    try:
        return Compiled.at(Path(spec.origin))
    except (OSError, AttributeError):
        return None
