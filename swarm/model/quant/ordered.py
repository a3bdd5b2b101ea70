"""A matrix whose inputs were put into another order before they were quantized (GPTQ's act-order)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.model.kernels.card_matrix import CardMatrix
from swarm.model.memory import num_bytes
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.int8_groups import Int8Groups

Quantized = Int4Matrix | Int8Matrix | Int8Groups | CardMatrix


@dataclass(frozen=True)
class Ordered:
    """A matrix [N, K] whose column j meets input `order[j]`; the rows are put into that order at each product."""

    matrix: Quantized
    order: Tensor  # int32 [K]

    def to(self, device: torch.device | str) -> Ordered:
        return Ordered(self.matrix.to(device), self.order.to(device))

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.matrix, self.order)

    def product(self, x: Tensor) -> Tensor:
        """`x` [n, K] times the transpose of the matrix: [n, N]."""
        return self.matrix.product(x.index_select(1, self.order))

    def dense(self) -> Tensor:
        """The matrix [N, K], inputs in their own order."""
        w = self.matrix.dense()
        return torch.empty_like(w).index_copy_(1, self.order.long(), w)
