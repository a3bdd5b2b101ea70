"""The kernels of `swarm.model.kernels.port`, started on a card; or on a CPU by Triton's interpreter, for tests.

R: rows   K: inputs   N: outputs   S: matrices a row chose   NH: heads   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from swarm.model.kernels.bank import Bank, Packed
from swarm.model.kernels.grouped import TILE_ROWS, grouped, unpack
from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.paged import attend, combine

BLOCK_N = 32
"""Outputs of a program: few, so that a matrix of 4096 outputs has one program for each multiprocessor of a large card."""
BLOCK_K = 64
AHEAD_BYTES = 512
"""Groups of 4-bit codes that a program reads at once are four, or as many as one row's inputs for them take so many bytes: more
inputs of all its rows are more than a card of the consumer kind has beside each multiprocessor (99 KiB)."""
STAGES = 4
"""How far ahead it reads. With the above about 24 KiB a multiprocessor are on their way, what 4 TB/s of 0.7 us need."""
UNPACK_N = 64
SPLIT = 256
"""Positions that one program reads where a row comes alone."""
BLOCK_BYTES = 8192
"""Of keys that a program holds at once: twice that, and the values, are within what the smallest card has."""
DOTS = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@dataclass(frozen=True)
class OnTriton:
    """Kernels in Triton.

    Args:
        interpreted: the interpreter runs them: it knows no products in 16 bits.
    """

    interpreted: bool = False

    def grouped(self, x: Tensor, chosen: Tensor, bank: Bank, gated: bool = False, by_slot: bool = False) -> Tensor:
        """See `Kernels.grouped`. Nothing waits for the card."""
        rows, slots = chosen.shape
        like = bank.like
        width = like.rows // 2 if gated else like.rows
        out = torch.empty(rows * slots, width, dtype=x.dtype, device=x.device)
        grid = (triton.cdiv(rows, TILE_ROWS), triton.cdiv(width, BLOCK_N), len(bank.parts))
        form = {"BITS": like.bits, "GROUP": like.group, "STEP": like.step, "GATED": gated, "BY_SLOT": by_slot}
        ahead = min(4, max(1, AHEAD_BYTES // (max(1, like.group) * x.element_size())))
        blocks = {"ROWS": TILE_ROWS, "BLOCK_N": BLOCK_N, "BLOCK_K": BLOCK_K, "AHEAD": ahead, "num_stages": STAGES, "num_warps": 4}
        choices = {"CHOICES": slots, "PADDED": triton.next_power_of_2(slots), "DOT": self._dot(x)}
        sizes = (rows, width, like.columns, like.rows)
        with _on(x):
            grouped[grid](x, bank.table, bank.scales, chosen, out, *sizes, **choices, **form, **blocks)
        return out

    def unpacked(self, matrix: Packed, part: range) -> Tensor:
        """See `Kernels.unpacked`."""
        out = torch.empty(len(part), matrix.columns, dtype=matrix.numbers, device=matrix.codes.device)
        grid = (triton.cdiv(len(part), UNPACK_N), matrix.codes.shape[0])
        sizes = (part.start, len(part), matrix.columns, matrix.rows)
        form = {"BITS": matrix.bits, "GROUP": matrix.group, "STEP": matrix.step}
        with _on(out):
            unpack[grid](matrix.codes, matrix.scales, out, *sizes, **form, BLOCK_N=UNPACK_N)
        return out

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, lanes: Lanes, window: int = 0, sinks: Tensor | None = None) -> Tensor:
        """See `Kernels.attend`. Rows that come alone are split by position, tiles of several are not."""
        rows, heads, head_dim = q.shape
        assert q.stride(1) == head_dim and q.stride(2) == 1, "heads of a row lie together"
        _, page, kv, _ = keys.shape
        split = SPLIT if lanes.tile_rows == 1 else 0
        splits = triton.cdiv(lanes.reach, SPLIT) if split else 1
        padded = max(TILE_ROWS, triton.next_power_of_2(head_dim))
        out = torch.empty(rows, heads, head_dim, dtype=q.dtype, device=q.device)
        sums = torch.empty(splits, *out.shape, dtype=torch.float32, device=q.device) if split else out
        norms = torch.empty(splits, rows, heads, 2, dtype=torch.float32, device=q.device) if split else out
        given = sinks if sinks is not None else out
        where = (lanes.positions, lanes.tiles, lanes.tables)
        sizes = (q.stride(0), lanes.tables.stride(0), rows, head_dim**-0.5, window)
        shape = {"D": head_dim, "PADDED": padded, "SINKS": sinks is not None}
        tile = {
            "M": max(TILE_ROWS, triton.next_power_of_2(lanes.tile_rows * (heads // kv))),
            "BLOCK": max(TILE_ROWS, min(64, BLOCK_BYTES // (padded * q.element_size()))),
        }
        rest = {"KV": kv, "G": heads // kv, "PAGE": page, "SPLIT": split, "DOT": self._dot(q), "num_warps": 4, "num_stages": 2}
        with _on(q):
            attend[(lanes.tiles.shape[0], kv, splits)](
                q, keys, values, given, *where, out, sums, norms, *sizes, **shape, **tile, **rest
            )
            if split:
                combine[(rows * heads,)](sums, norms, given, out, rows * heads, splits, NH=heads, **shape, num_warps=1)
        return out

    def _dot(self, x: Tensor) -> object:
        return tl.float32 if self.interpreted else DOTS[x.dtype]


def _on(x: Tensor) -> AbstractContextManager[object]:
    """Triton starts kernels on the current card, which is the first one unless somebody says otherwise."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
