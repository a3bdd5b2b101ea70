"""Products of few bits on a CPU's matrix unit for bf16, where a C compiler was there when swarm was installed (`amx.h`).

n: rows   N: outputs   K: inputs   G: groups of a row
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swarm.model.memory import TOGETHER, evened
from swarm.model.quant.compiled import compiled
from swarm.weights.spread_out import spread_out

ROWS4, ROWS8 = range(2, 257), range(4, 257)
"""So many rows of 4 and of 8 bits are quicker here than by torch's product, or unpacked; see docs/performance.md."""
GROUPS = (32, 64, 128)
OUTPUTS4, OUTPUTS8 = 64, 16
"""Outputs that are computed together."""
INPUTS8 = 32
"""What it wants the inputs of 8 bits to be a multiple of."""


class _Task4(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 6), ("pointers", ctypes.c_void_p * 6)]


class _Task8(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 5), ("pointers", ctypes.c_void_p * 6)]


@dataclass(frozen=True)
class MatrixUnit:
    """The products, by as many threads as torch has."""

    functions: ctypes.CDLL

    def takes4(self, x: Tensor, packed: Tensor, group: int, few_rows: int) -> bool:
        """Whether rows `x` [n, K] are to meet this plane of 4 bits here. Threads share out more than `few_rows` only."""
        return _may(x, ROWS4, few_rows) and group in GROUPS and packed.shape[0] % OUTPUTS4 == 0

    def takes8(self, x: Tensor, q: Tensor, few_rows: int) -> bool:
        """Whether rows `x` [n, K] are to meet these codes of 8 bits here. Threads share out more than `few_rows` only."""
        return _may(x, ROWS8, few_rows) and q.shape[0] % OUTPUTS8 == 0 and q.shape[1] % INPUTS8 == 0

    def product4(self, x: Tensor, packed: Tensor, lines: Tensor) -> Tensor:
        """`x` times a plane transposed: [n, N].

        Args:
            x: bf16 [n, K], contiguous.
            packed: uint8 [N, K / 2], as `swarm.model.quant.int4_layout` says.
            lines: bf16 [G, N, 2]: scale and zero.
        """
        num_rows, x = x.shape[0], evened(x)
        (rows, inputs), (groups, outputs, _) = x.shape, lines.shape
        out = x.new_empty(rows, outputs)
        assert all(each.is_contiguous() for each in (x, packed, lines)) and x.dtype is lines.dtype is torch.bfloat16
        assert packed.shape == (outputs, inputs // 2) and outputs % OUTPUTS4 == 0 and inputs == groups * (inputs // groups)

        def multiply(blocks: slice) -> None:
            sums, totals = torch.empty(rows * groups, dtype=torch.float32), torch.empty(rows * OUTPUTS4, dtype=torch.float32)
            sizes = rows, inputs, outputs, inputs // groups, blocks.start, blocks.stop
            task = _Task4(sizes, tuple(each.data_ptr() for each in (x, packed, lines, sums, totals, out)))
            self.functions.swarm_product(ctypes.byref(task))

        _shared_out(multiply, outputs // OUTPUTS4)
        return out[:num_rows]

    def product8(self, x: Tensor, q: Tensor, scales: Tensor) -> Tensor:
        """`x` times codes transposed, times each output's scale: [n, N], outputs side by side in memory.

        Args:
            x: bf16 [n, K], contiguous.
            q: int8 [N, K].
            scales: bf16 [N].
        """
        (rows, inputs), outputs = x.shape, q.shape[0]
        out = x.new_empty(outputs, -(-rows // TOGETHER) * TOGETHER)
        assert all(each.is_contiguous() for each in (x, q, scales)) and x.dtype is scales.dtype is torch.bfloat16
        assert q.shape == (outputs, inputs) and len(scales) == outputs and outputs % OUTPUTS8 == inputs % INPUTS8 == 0

        def multiply(blocks: slice) -> None:
            turned, tiles = x.new_empty(out.shape[1] * inputs), x.new_empty(OUTPUTS8 * inputs)
            task = _Task8(
                (rows, inputs, outputs, blocks.start, blocks.stop), tuple(e.data_ptr() for e in (x, q, scales, turned, tiles, out))
            )
            self.functions.swarm_bytes_product(ctypes.byref(task))

        _shared_out(multiply, outputs // OUTPUTS8)
        return out[:, :rows].t()


@lru_cache
def matrix_unit() -> MatrixUnit | None:
    """What this CPU has; None where it has none, the system does not allow it, or nothing was compiled."""
    quick = compiled()
    if quick is None or not hasattr(quick.functions, "swarm_has_tiles") or not quick.functions.swarm_has_tiles():
        return None
    for function in (quick.functions.swarm_product, quick.functions.swarm_bytes_product):
        function.argtypes, function.restype = [ctypes.c_void_p], None
    return MatrixUnit(quick.functions)


def _may(x: Tensor, rows: range, few_rows: int) -> bool:
    shared_out = torch.get_num_threads() == 1 or x.shape[0] > few_rows
    return x.dtype is torch.bfloat16 and x.device.type == "cpu" and x.shape[0] in rows and shared_out


def _shared_out(multiply: Callable[[slice], None], blocks: int) -> None:
    threads = torch.get_num_threads()
    if threads == 1 or blocks < 2 * threads:
        multiply(slice(0, blocks))
    else:
        spread_out(lambda part: multiply(slice(part.start, min(part.stop, blocks))), blocks, math.ceil(blocks / threads))
