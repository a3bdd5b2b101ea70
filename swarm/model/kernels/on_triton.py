"""The kernels of `swarm.model.kernels.port`, started on a card; or on a CPU by Triton's interpreter, for tests.

R: rows   K: inputs   N: outputs   S: matrices a row chose
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from swarm.model.kernels.bank import Bank, Packed
from swarm.model.kernels.grouped import TILE_ROWS, grouped, unpack

BLOCK_N = 32
"""Outputs of a program: few, so that a matrix of 4096 outputs has one program for each multiprocessor of a large card."""
BLOCK_K = 128
AHEAD = 4
"""Groups of 4-bit codes that a program reads at once."""
STAGES = 3
"""How far ahead it reads. With the above about 24 KiB a multiprocessor are on their way, what 4 TB/s of 0.7 us need."""
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
        grouped[grid](
            x,
            bank.table,
            bank.scales,
            chosen,
            out,
            rows,
            width,
            like.columns,
            like.rows,
            CHOICES=slots,
            PADDED=triton.next_power_of_2(slots),
            GROUP=like.group,
            GATED=gated,
            BY_SLOT=by_slot,
            ROWS=TILE_ROWS,
            BLOCK_N=BLOCK_N,
            BLOCK_K=BLOCK_K,
            AHEAD=AHEAD,
            DOT=self._dot(x),
            num_warps=4,
            num_stages=STAGES,
        )
        return out

    def unpacked(self, matrix: Packed) -> Tensor:
        """See `Kernels.unpacked`."""
        out = torch.empty(matrix.rows, matrix.columns, dtype=matrix.numbers, device=matrix.codes.device)
        grid = (triton.cdiv(matrix.rows, 64), matrix.codes.shape[0])
        unpack[grid](matrix.codes, matrix.scales, out, matrix.columns, matrix.rows, GROUP=matrix.group, BLOCK_N=64)
        return out

    def _dot(self, x: Tensor) -> object:
        return tl.float32 if self.interpreted else DOTS[x.dtype]
