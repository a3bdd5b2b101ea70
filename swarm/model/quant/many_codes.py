"""Many rows times a matrix in 4 bits on a CPU's matrix unit, where a C compiler was there at installation (`many4.h`).

n: rows   N: outputs   K: inputs   G: groups of a row   H: hidden   F: ffn
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.memory import TOGETHER
from swarm.model.native.compiled import compiled
from swarm.model.native.many_rows import together
from swarm.model.quant import int4_layout

FEWEST = 24
"""Rows; with fewer, scaling what was summed (`swarm.model.quant.matrix_unit`) is less work than unpacking."""
GROUPS = (32, 64, 128)
HEIGHT = 64
"""Outputs of a block, as torch packs them here."""
PARTS = 4
"""Of a matrix for each thread, where there are several: the first unit of each is unpacked before anything is multiplied."""


class _Many4(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 6), ("pointers", ctypes.c_void_p * 4)]


@dataclass(frozen=True)
class ManyCodes:
    """The product, by as many threads as torch has."""

    functions: ctypes.CDLL

    def takes(self, x: Tensor, packed: Tensor, group: int) -> bool:
        """Whether rows `x` [n, K] are to meet this plane of 4 bits [N, K / 2] here."""
        many = x.shape[0] >= FEWEST and x.dtype is torch.bfloat16 and x.device.type == "cpu"
        return many and self.reads(packed, group)

    def reads(self, packed: Tensor, group: int) -> bool:
        """Whether a plane of 4 bits [N, K / 2] lies as is expected here."""
        return group in GROUPS and packed.shape[0] % HEIGHT == 0

    def reads_gated(self, packed: Tensor, group: int) -> bool:
        """Whether w2 [H, F / 2] does too, and what meets it is put out by whole blocks."""
        return self.reads(packed, group) and 2 * packed.shape[1] % HEIGHT == 0

    def product(self, x: Tensor, packed: Tensor, lines: Tensor) -> Tensor:
        """`x` times a plane transposed: [n, N].

        Args:
            x: bf16 [n, K], contiguous.
            packed: uint8 [N, K / 2], as `swarm.model.quant.int4_layout` says.
            lines: bf16 [G, N, 2]: scale and zero.
        """
        out, x = x.new_empty(x.shape[0], lines.shape[1]), _in_tiles(x)
        for rows in together(*x.shape):
            self._run(x[rows], packed, lines, out[rows], gated=False)
        return out

    def expert(self, x: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
        """`x` [n, H] through a SwiGLU expert: [n, H].

        Args:
            first, second: codes and lines of w1 above w3 [2F, H], and of w2 [H, F].
        """
        ffn, out = first[1].shape[1] // 2, x.new_empty(x.shape[0], second[1].shape[1])
        assert ffn == 2 * second[0].shape[1] and ffn % HEIGHT == 0
        x = _in_tiles(x)
        for rows in together(x.shape[0], max(x.shape[1], ffn)):
            some = x[rows]
            between = some.new_empty(some.shape[0], ffn)
            self._run(some, *first, between, gated=True)
            self._run(between, *second, out[rows], gated=False)
        return out

    def _run(self, x: Tensor, packed: Tensor, lines: Tensor, out: Tensor, gated: bool) -> None:
        (groups, outputs, _), inputs = lines.shape, x.shape[1]
        assert all(each.is_contiguous() for each in (x, packed, lines, out)) and x.dtype is lines.dtype is torch.bfloat16
        assert packed.shape == (outputs, inputs // 2) and outputs % HEIGHT == inputs % groups == x.shape[0] % TOGETHER == 0
        threads = torch.get_num_threads()
        part = -(-outputs // (HEIGHT * (1 + gated) * (PARTS * threads if threads > 1 else 1)))
        where = (each.data_ptr() for each in (x, packed, lines, out))
        task = _Many4((out.shape[0], inputs, outputs, inputs // groups, part, gated), tuple(where))
        self.functions.swarm_many4(ctypes.byref(task), threads)


def _in_tiles(x: Tensor) -> Tensor:
    """Rows `x` [n, K], and rows of zeros up to whole tiles: the matrix unit reads all rows of a tile, those of the last one too."""
    missing = -x.shape[0] % TOGETHER
    return F.pad(x, (0, 0, 0, missing)) if missing else x


@lru_cache
def many_codes() -> ManyCodes | None:
    """What this CPU has; None where it has no such unit or may not use it, torch packs otherwise, or nothing was compiled."""
    quick = compiled()
    if quick is None or not hasattr(quick.functions, "swarm_has_tiles") or not quick.functions.swarm_has_tiles():
        return None
    if not int4_layout.packs(HEIGHT):
        return None
    quick.functions.swarm_many4.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    quick.functions.swarm_many4.restype = None
    return ManyCodes(quick.functions)
