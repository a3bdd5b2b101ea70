"""Where rows lie in memory, as far as it may change a product's last bits."""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

TOGETHER = 16
"""Rows of a tile of the CPU's matrix unit."""
ALIGNMENT = 64
"""Bytes; what torch's own CPU allocations are aligned to."""
LARGE_PAGE = 1 << 21
"""Bytes, on x86-64."""


def aligned(x: Tensor) -> Tensor:
    """`x` itself where it is contiguous and 64-byte aligned, else a fresh copy that is.

    Rows that came off a wire and rows that the Block before computed must meet the same kernels.
    """
    if x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0:
        return x
    return x.clone(memory_format=torch.contiguous_format)


def evened(x: Tensor) -> Tensor:
    """Rows `x` [n, K], and rows of zeros up to a multiple of `TOGETHER` where bf16 meets a CPU.

    oneDNN compiles a kernel for each shape that a product has: an expert is given any number of rows, and each would cost 2 ms
    and 0.6 MB once (see docs/performance.md). Up to `TOGETHER` rows no prompt is waiting, so that these stay as they are.
    """
    missing = -x.shape[0] % TOGETHER
    if not missing or x.shape[0] < TOGETHER or x.dtype is not torch.bfloat16 or x.device.type != "cpu":
        return x
    return F.pad(x, (0, 0, 0, missing))


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` [n] of `x` [R, H] as one aligned matrix [n, H]; `index` ascends without repeats."""
    if index.shape[0] == x.shape[0]:  # every row, so in the order they are in
        return aligned(x)
    return x.index_select(0, index)


class Sized(Protocol):
    """Something that knows what it weighs."""

    @property
    def num_bytes(self) -> int: ...


def num_bytes(*weights: Tensor | Sized | None) -> int:
    """What the weights weigh, in bytes; those that are not there weigh nothing."""
    return sum(w.numel() * w.element_size() if isinstance(w, Tensor) else w.num_bytes for w in weights if w is not None)


def scratch(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for what is large and soon done with: straight from the system, which has it back with the last use of it.

    malloc takes the size of whatever large is freed for one that it should rather keep, and has holes of that size from then on.
    """
    count = math.prod(shape)
    return (
        torch.frombuffer(mmap.mmap(-1, max(1, count * dtype.itemsize)), dtype=dtype, count=count).view(*shape)
        if count
        else torch.empty(shape, dtype=dtype)
    )


def in_large_pages(x: Tensor) -> Tensor:
    """`x` itself, contiguous, whose memory holds nothing yet: where a CPU reads it and the system can, in pages of 2 MiB.

    A CPU finds few of them quicker than many small ones, and reads on where a small one would end. Only a hint: nothing is lost
    where it is not taken.
    """
    size = x.numel() * x.element_size()
    if sys.platform == "linux" and x.device.type == "cpu" and size >= LARGE_PAGE:
        inside = x.data_ptr() % mmap.PAGESIZE  # whole pages, so that what lies side by side stays one mapping
        ctypes.CDLL(None).madvise(ctypes.c_void_p(x.data_ptr() - inside), ctypes.c_size_t(inside + size), mmap.MADV_HUGEPAGE)
    return x


def trim() -> None:
    """Hand what was freed back to the operating system, where malloc would keep it in heaps with holes, one a thread."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
