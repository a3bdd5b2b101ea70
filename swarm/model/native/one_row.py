"""One row times a matrix of bf16 or of 8 bits, where a C compiler was there at installation (`one.h`).

N: outputs   K: inputs
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swarm.model.native.compiled import LANES, compiled
from swarm.model.quant.dots import MOST_INPUTS, WIDE

INPUTS, OUTPUTS = 32, 4
"""What it wants the inputs and the outputs to be a multiple of."""
PART_BYTES = 1 << 16
"""About so much of a matrix is read by one thread at a time."""


class _One(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_int64 * 4), ("pointers", ctypes.c_void_p * 4)]


@dataclass(frozen=True)
class OneRow:
    """The product, by as many threads as torch has."""

    functions: ctypes.CDLL
    wide: bool
    """Whether by AVX-512 in place of AVX2."""

    def takes(self, x: Tensor, w: Tensor) -> bool:
        """Whether rows `x` [n, K] are to meet these numbers or codes [N, K] here."""
        return x.shape[0] == 1 and x.dtype is torch.bfloat16 and x.device.type == "cpu" and self.reads(w)

    def reads(self, w: Tensor) -> bool:
        """Whether a matrix [N, K] is of a kind and shape that are expected here."""
        of_a_kind = w.dtype in (torch.bfloat16, torch.int8) and w.is_contiguous()
        return of_a_kind and w.shape[0] % OUTPUTS == 0 and w.shape[1] % INPUTS == 0 and w.shape[1] <= MOST_INPUTS

    def product(self, x: Tensor, w: Tensor, scales: Tensor | None = None) -> Tensor:
        """`x` times a matrix transposed: [1, N].

        Args:
            x: bf16 [1, K], contiguous.
            w: bf16 [N, K], or int8 beside scales.
            scales: bf16 [N].
        """
        out = x.new_empty(1, w.shape[0])
        self.functions.swarm_one(ctypes.byref(self._task(x, w, scales, out)), torch.get_num_threads())
        return out

    def expert(self, x: Tensor, first: tuple[Tensor, Tensor | None], second: tuple[Tensor, Tensor | None]) -> Tensor:
        """`x` [1, H] through a SwiGLU expert: [1, H].

        Args:
            first, second: w1 above w3 [2F, H], and w2 [H, F], each as `product` takes them.
        """
        both = x.new_empty(1, first[0].shape[0])
        gated, out = x.new_empty(1, both.shape[1] // 2), x.new_empty(1, second[0].shape[0])
        assert gated.shape[1] % LANES == 0
        tasks = self._task(x, *first, both), self._task(gated, *second, out)
        self.functions.swarm_one_expert(*map(ctypes.byref, tasks), torch.get_num_threads())
        return out

    def _task(self, x: Tensor, w: Tensor, scales: Tensor | None, out: Tensor) -> _One:
        outputs, inputs = w.shape
        assert x.is_contiguous() and x.shape == (1, inputs) and x.dtype is torch.bfloat16 and self.reads(w)
        assert (w.dtype is torch.int8) == (scales is not None)
        assert scales is None or (scales.shape == (outputs,) and scales.dtype is torch.bfloat16 and scales.is_contiguous())
        where = None if scales is None else scales.data_ptr()
        return _One((inputs, outputs, part_of(w), self.wide), (x.data_ptr(), w.data_ptr(), where, out.data_ptr()))


def part_of(w: Tensor) -> int:
    """Outputs of a matrix [N, K] that one thread takes at a time."""
    return max(1, PART_BYTES // (w.shape[1] * w.element_size() * OUTPUTS)) * OUTPUTS


@lru_cache
def one_row() -> OneRow | None:
    """What this CPU has; None where it has not, or nothing was compiled."""
    quick = compiled()
    if quick is None or not hasattr(quick.functions, "swarm_one"):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quick.functions.swarm_one.argtypes = [pointer, number]
    quick.functions.swarm_one_expert.argtypes = [pointer, pointer, number]
    quick.functions.swarm_one.restype = quick.functions.swarm_one_expert.restype = None
    kind = quick.functions.swarm_has_dots()
    return OneRow(quick.functions, kind == WIDE) if kind else None
