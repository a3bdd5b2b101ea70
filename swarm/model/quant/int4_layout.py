"""How torch packs 4-bit codes for its CPU kernel: found out by packing rows that name themselves, since it differs between CPUs.

Blocks of rows follow each other; within one, each input has half a byte a row. Blocks are as high as four vectors of the CPU
are wide; the last may be lower, and is ordered in its own way.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BLOCK_ROWS = {"AVX512": 64}
"""By `torch.backends.cpu.get_cpu_capability()`; 32 elsewhere."""


def pack(q: Tensor) -> Tensor:
    """Codes [N, K] of 0 to 15, N a multiple of 16 and K even, in the kernel's order: uint8 [N, K / 2]."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.to(torch.int32), 1)
    return packed


def blocks(rows: int) -> list[range]:
    """The blocks of a packed matrix's rows."""
    height = BLOCK_ROWS.get(torch.backends.cpu.get_cpu_capability(), 32)
    return [range(at, min(at + height, rows)) for at in range(0, rows, height)]


def unpack(packed: Tensor, rows: range) -> Tensor:
    """The codes less 8, int8 [K, n], of one of a packed matrix's `blocks`, an input a row."""
    halves = packed[rows.start : rows.stop].reshape(-1, len(rows) // 2).view(torch.int8)  # [K, n / 2]: a block is one run of bytes
    codes = torch.cat((halves & 15, (halves >> 4) & 15), 1).sub_(8)
    places = _places(len(rows))
    return codes if places is None else codes[:, places]


@lru_cache
def _places(height: int) -> Tensor | None:
    """Where each row of a block of that height is among an input's low halves and then its high ones; None: in that order."""
    row = torch.arange(height).unsqueeze(1).expand(height, 2)
    seen = torch.zeros(height, dtype=torch.int64)
    for shift in (0, 4):  # heights are below 256: two digits of four bits
        halves = pack((row >> shift) & 15).flatten()[: height // 2]
        seen += torch.cat((halves & 15, halves >> 4)).to(torch.int64) << shift
    return None if torch.equal(seen, torch.arange(height)) else torch.argsort(seen)
