"""What a card computes with beside torch's own products: one port, and its twin in plain torch.

R: rows   K: inputs   N: outputs   S: matrices a row chose   NH: heads   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.kernels.bank import Bank, Packed

FEW_ROWS = 32
"""Up to so many rows of a micro-batch the rows meet the packed matrices that they chose; more meet unpacked ones. A constant of
the kind of device. Reasoned, not measured: no GPU has run this yet."""


class Kernels(Protocol):
    """A row's bits depend on the row and the matrix alone, not on other rows (promise 2)."""

    def grouped(self, x: Tensor, chosen: Tensor, bank: Bank, gated: bool = False, by_slot: bool = False) -> Tensor:
        """Rows times the matrices that they chose, transposed: [R S, N], rows of a row together; its numbers are the bank's.

        Args:
            x: [R, K], contiguous; [R S, K] where `by_slot`: each choice has a row of its own.
            chosen: [R, S] int64; what names a matrix that is not in the bank leaves its rows undefined.
            gated: SiLU of the first half of the outputs times the second half: [R S, N / 2].
        """
        ...

    def unpacked(self, matrix: Packed) -> Tensor:
        """The matrix [N, K] in numbers, each rounded once."""
        ...


@dataclass(frozen=True)
class Plain:
    """The twin in plain torch, on any device: it asks the card what was chosen, and waits for the answer."""

    def grouped(self, x: Tensor, chosen: Tensor, bank: Bank, gated: bool = False, by_slot: bool = False) -> Tensor:
        """See `Kernels.grouped`."""
        rows, slots = chosen.shape
        width = bank.like.rows // 2 if gated else bank.like.rows
        out = torch.zeros(rows * slots, width, dtype=x.dtype, device=x.device)
        flat = chosen.flatten()
        for number in sorted(set(flat.tolist())):
            part = bank.parts[number]
            if part is None:
                continue
            at = (flat == number).nonzero()[:, 0]
            y = F.linear(x[at if by_slot else at // slots], part.weights())
            if gated:
                gate, up = y.chunk(2, -1)
                y = F.silu(gate) * up
            out[at] = y
        return out

    def unpacked(self, matrix: Packed) -> Tensor:
        """See `Kernels.unpacked`."""
        return matrix.weights()
