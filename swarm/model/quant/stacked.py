"""Matrices of one width, one above the other, that are kept in different forms or orders: q, k and v of a mixed file, say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.model.memory import num_bytes
from swarm.model.quant.ordered import Ordered, Quantized


@dataclass(frozen=True)
class Stacked:
    """A matrix [N, K] in parts [N1, K], [N2, K], ..."""

    parts: tuple[Quantized | Ordered, ...]

    def to(self, device: torch.device | str) -> Stacked:
        return Stacked(tuple(part.to(device) for part in self.parts))

    @property
    def shape(self) -> tuple[int, int]:
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    @property
    def num_bytes(self) -> int:
        return num_bytes(*self.parts)

    def product(self, x: Tensor) -> Tensor:
        """`x` [n, K] times the transpose of the matrix: [n, N]."""
        return torch.cat([part.product(x) for part in self.parts], -1)

    def dense(self) -> Tensor:
        """The matrix [N, K]."""
        return torch.cat([part.dense() for part in self.parts])
