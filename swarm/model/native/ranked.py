"""The best of a row's logits, and what the exponentials of all add up to, where a C compiler was there (`ranked.h`).

n: rows   V: vocabulary   k: best
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from swarm.model.native.compiled import compiled
from swarm.model.native.one_row import one_row

LARGEST = 3e38
"""About the largest number of fp32: a factor beyond it makes nothing of any logit but the largest, either."""
SUMS = 3
"""Numbers that a row's logarithms are made of."""
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


class _Ranking(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 2), ("pointers", _POINTER * 4), ("factor", ctypes.c_float)]


class Ranks(NamedTuple):
    """What is told of a row."""

    ids: list[int]
    """Of the k best logits, best first; of equal ones the first."""
    logits: list[float]
    logsumexp: float
    """Of all logits; no finite number where one of them is none."""
    logsumexp_t: float
    """Of all logits over a temperature."""


@dataclass(frozen=True)
class Ranked:
    """The call, by as many threads as torch has. A row is told the same beside any others."""

    functions: ctypes.CDLL
    wide: bool
    """Whether by AVX-512 in place of AVX2."""

    def takes(self, logits: Tensor) -> bool:
        """Whether rows `logits` [n, V] are of a kind that is expected here."""
        return logits.dtype is torch.bfloat16 and logits.device.type == "cpu" and logits.is_contiguous()

    def of(self, logits: Tensor, wanted: Sequence[tuple[int, float]]) -> list[Ranks]:
        """What is told of rows `logits` [n, V].

        Args:
            wanted: of each row: how many best ones, V at most, and the temperature, above 0.
        """
        rows, vocab = logits.shape
        assert len(wanted) == rows and vocab and all(0 <= k <= vocab and t > 0 for k, t in wanted)
        width = max(k for k, _ in wanted)
        ids, best = (ctypes.c_int32 * (rows * width))(), (ctypes.c_float * (rows * width))()
        sums, tasks = (ctypes.c_double * (rows * SUMS))(), (_Ranking * rows)()
        where = (logits.data_ptr(), *(ctypes.addressof(each) for each in (ids, best, sums)))
        apart = (vocab * logits.itemsize, width * 4, width * 4, SUMS * 8)  # bytes from a row to the next
        for row, (task, (k, temperature)) in enumerate(zip(tasks, wanted, strict=True)):
            task.sizes[:] = vocab, k
            task.pointers[:] = [first + row * bytes_ for first, bytes_ in zip(where, apart, strict=True)]
            task.factor = min(1 / temperature, LARGEST)
        self.functions.swarm_rank(tasks, rows, self.wide, torch.get_num_threads())
        told = []
        for row, (k, temperature) in enumerate(wanted):
            at, (largest, total, total_t) = row * width, sums[row * SUMS : (row + 1) * SUMS]
            both = largest + math.log(total), largest / temperature + math.log(total_t)
            told.append(Ranks(ids[at : at + k], best[at : at + k], *both))
        return told


@lru_cache
def ranked() -> Ranked | None:
    """What this CPU has; None where it has not, or nothing was compiled."""
    quick, one = compiled(), one_row()
    if quick is None or one is None:
        return None
    call = quick.functions.swarm_rank
    call.argtypes, call.restype = [_POINTER, _NUMBER, _NUMBER, _NUMBER], None
    return Ranked(quick.functions, one.wide)
