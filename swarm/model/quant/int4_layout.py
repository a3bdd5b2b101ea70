"""How torch packs 4-bit codes for its CPU kernel: found out by packing rows that name themselves, since it differs between CPUs.

Blocks of rows follow each other; within one, each input has half a byte a row. Blocks are as high as four vectors of the CPU
are wide; the last may be lower, and is ordered in its own way.

N: outputs   K: inputs   b: blocks of a tile   h: rows of a block
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

BLOCK_ROWS = {"AVX512": 64}
"""By `torch.backends.cpu.get_cpu_capability()`; 32 elsewhere."""
PACKED_ROWS = 1024
"""Outputs packed at once, a multiple of all blocks' heights: torch takes codes as 4 bytes each."""
TILE_WEIGHTS = 1 << 21
"""About so many are unpacked and multiplied at once: a product of fewer takes longer a weight, more leave a core's cache."""


@dataclass(frozen=True)
class Tile:
    """Some whole blocks of one height."""

    first: int
    height: int
    blocks: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.height * self.blocks)


def pack(q: Tensor) -> Tensor:
    """Codes [N, K] of 0 to 15, N a multiple of 16 and K even, in the kernel's order: uint8 [N, K / 2]."""
    packed = torch.empty(q.shape[0], q.shape[1] // 2, dtype=torch.uint8)
    for first in range(0, len(q), PACKED_ROWS):
        rows = slice(first, first + PACKED_ROWS)
        packed[rows] = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q[rows].to(torch.int32), 1)
    return packed


def block_rows() -> int:
    """How high blocks are on this CPU."""
    return BLOCK_ROWS.get(torch.backends.cpu.get_cpu_capability(), 32)


def tiles(rows: int, columns: int) -> list[Tile]:
    """All rows of a packed matrix [rows, columns]."""
    height = block_rows()
    whole, rest = divmod(rows, height)
    most = max(1, TILE_WEIGHTS // (height * columns))
    found = [Tile(at * height, height, min(most, whole - at)) for at in range(0, whole, most)]
    return [*found, Tile(whole * height, rest, 1)] if rest else found


def blocks(packed: Tensor, tile: Tile) -> Tensor:
    """A tile's bytes, [b, K, h / 2]: a block is one run of them."""
    return packed[tile.rows].view(tile.blocks, -1, tile.height // 2)


def spread(halves: Tensor, spare: Tensor, out: Tensor) -> None:
    """Some inputs of a tile's `blocks`, uint8 [b, k, h / 2], as codes of 0 to 15 in `out` fp32 [b, k, h].

    Args:
        spare: like `halves`, contiguous: what it held is lost.
    """
    low, high = out.unflatten(-1, (2, -1)).unbind(-2)
    low.copy_(torch.bitwise_and(halves, 15, out=spare))
    high.copy_(torch.bitwise_right_shift(halves, 4, out=spare))
    places = _places(out.shape[-1])
    if places is not None:
        out.copy_(out[..., places])


def straight(height: int) -> bool:
    """Whether the low halves of a block's bytes are its first rows and the high halves the others, each in their order."""
    return _places(height) is None


def packs(height: int) -> bool:
    """Whether torch packs in blocks so high here, and straight; it can be told to know less of a CPU than there is."""
    return block_rows() == height and straight(height)


@lru_cache
def _places(height: int) -> Tensor | None:
    """Where each row of a block of that height is among an input's low halves and then its high ones; None: in that order."""
    row = torch.arange(height).unsqueeze(1).expand(height, 2)
    seen = torch.zeros(height, dtype=torch.int64)
    for shift in (0, 4):  # heights are below 256: two digits of four bits
        halves = pack((row >> shift) & 15).flatten()[: height // 2]
        seen += torch.cat((halves & 15, halves >> 4)).to(torch.int64) << shift
    return None if torch.equal(seen, torch.arange(height)) else torch.argsort(seen)
