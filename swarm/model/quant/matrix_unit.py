"""Products of few bits on a CPU's matrix unit for bf16, where a C compiler was there when swarm was installed (`amx.h`).

n: rows   N: outputs   K: inputs   G: groups of a row
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swarm.model.memory import TOGETHER, evened
from swarm.model.native.compiled import compiled
from swarm.model.quant import int4_layout

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
    packs: bool
    """Whether torch packs 4 bits here as is expected."""

    def takes4(self, x: Tensor, packed: Tensor, group: int) -> bool:
        """Whether rows `x` [n, K] are to meet this plane of 4 bits here."""
        return self.packs and _may(x, ROWS4) and group in GROUPS and packed.shape[0] % OUTPUTS4 == 0

    def takes8(self, x: Tensor, q: Tensor) -> bool:
        """Whether rows `x` [n, K] are to meet these codes of 8 bits here."""
        return _may(x, ROWS8) and q.shape[0] % OUTPUTS8 == 0 and q.shape[1] % INPUTS8 == 0

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

        parts = _parts(outputs // OUTPUTS4)
        room = torch.empty(len(parts), rows * (groups + OUTPUTS4), dtype=torch.float32)
        tasks = (_Task4 * len(parts))()
        for task, part, own in zip(tasks, parts, room, strict=True):
            task.sizes[:] = rows, inputs, outputs, inputs // groups, part.start, part.stop
            task.pointers[:] = [each.data_ptr() for each in (x, packed, lines, own, own[rows * groups :], out)]
        self.functions.swarm_product(tasks, len(parts))
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

        parts = _parts(outputs // OUTPUTS8)
        room = x.new_empty(len(parts), (out.shape[1] + OUTPUTS8) * inputs)
        tasks = (_Task8 * len(parts))()
        for task, part, own in zip(tasks, parts, room, strict=True):
            task.sizes[:] = rows, inputs, outputs, part.start, part.stop
            task.pointers[:] = [each.data_ptr() for each in (x, q, scales, own, own[out.shape[1] * inputs :], out)]
        self.functions.swarm_bytes_product(tasks, len(parts))
        return out[:, :rows].t()


@lru_cache
def matrix_unit() -> MatrixUnit | None:
    """What this CPU has; None where it has none, the system does not allow it, or nothing was compiled."""
    quick = compiled()
    if quick is None or not hasattr(quick.functions, "swarm_has_tiles") or not quick.functions.swarm_has_tiles():
        return None
    for function in (quick.functions.swarm_product, quick.functions.swarm_bytes_product):
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_int64], None
    return MatrixUnit(quick.functions, int4_layout.packs(OUTPUTS4))


def _parts(blocks: int) -> list[range]:
    """As many parts as torch has threads."""
    step = math.ceil(blocks / torch.get_num_threads())
    return [range(at, min(at + step, blocks)) for at in range(0, blocks, step)]


def _may(x: Tensor, rows: range) -> bool:
    return x.dtype is torch.bfloat16 and x.device.type == "cpu" and x.shape[0] in rows
