"""A matrix of few bits on a card.

n: rows   N: outputs   K: inputs
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.kernels.bank import Bank, Packed
from swarm.model.kernels.choice import kernels_for
from swarm.model.kernels.port import FEW_ROWS, Kernels, Plain

TILE = 4096
"""Outputs that are unpacked at once."""


@dataclass(frozen=True)
class CardMatrix:
    """A matrix [N, K]; few rows meet its codes, more meet it unpacked."""

    packed: Packed

    def to(self, device: torch.device | str) -> CardMatrix:
        codes, scales = self.packed.codes.to(device), self.packed.scales.to(device)
        return CardMatrix(replace(self.packed, codes=codes, scales=scales))

    @property
    def shape(self) -> tuple[int, int]:
        return self.packed.rows, self.packed.columns

    @property
    def num_bytes(self) -> int:
        return self.packed.codes.numel() + self.packed.scales.numel() * self.packed.scales.element_size()

    @property
    def device(self) -> torch.device:
        return self.packed.codes.device

    def product(self, x: Tensor) -> Tensor:
        """`x` [n, K] times the transpose of the matrix: [n, N]."""
        if x.shape[0] <= FEW_ROWS:
            return self._kernels.grouped(x.contiguous(), self._alone[: x.shape[0]], self._bank)
        out = x.new_empty(x.shape[0], self.packed.rows)
        for at in range(0, self.packed.rows, TILE):
            part = range(at, min(at + TILE, self.packed.rows))
            out[:, part.start : part.stop] = F.linear(x, self._kernels.unpacked(self.packed, part))
        return out

    def dense(self) -> Tensor:
        """The matrix [N, K] in the dtype of its scales."""
        return self.packed.weights()

    @cached_property
    def _kernels(self) -> Kernels:
        return kernels_for(self.device, self.packed.numbers) or Plain()

    @cached_property
    def _bank(self) -> Bank:
        return Bank((self.packed,))

    @cached_property
    def _alone(self) -> Tensor:
        """What all rows choose."""
        return torch.zeros(FEW_ROWS, 1, dtype=torch.int64, device=self.device)
