"""What is compiled of unpacking, where a C compiler was there when swarm was installed (`products.c`).

b: blocks of a tile   h: rows of a block   K: inputs   G: groups of a row   S: shares of the groups
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

NAME = "swarm.model.native.products"
LAYOUT = 3
"""Of the structures that are passed: what was compiled from other sources would read them wrongly, and is not used."""
HEIGHTS = (32, 64)
"""Of a tile's blocks."""
LANES = 16
"""Inputs that are unpacked at once."""


@dataclass(frozen=True)
class Compiled:
    """Each tile in one pass, into bf16."""

    functions: ctypes.CDLL

    @classmethod
    def at(cls, path: Path) -> Compiled:
        """Those of a shared object. Raises OSError or AttributeError where it does not fit this machine, or these sources."""
        functions = ctypes.CDLL(str(path))
        if functions.swarm_layout() != LAYOUT:
            raise OSError(f"{path} was compiled from other sources")
        pointer = ctypes.c_void_p
        functions.swarm_grouped.argtypes = [pointer, pointer, pointer, pointer, pointer]
        functions.swarm_grouped.restype = None
        return cls(functions)

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
