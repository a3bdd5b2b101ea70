"""Matrices of 4 bits: `w = (q - 8) * scale + zero`, a scale and a zero for each group along the input dimension.

n: rows   N: outputs   K: inputs   g: group   G: groups of a row
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from swarm.model.kernels.card_matrix import CardMatrix
from swarm.model.memory import num_bytes
from swarm.model.quant import on_card, planes
from swarm.model.quant.dots import dots
from swarm.model.quant.many_codes import many_codes
from swarm.model.quant.matrix_unit import matrix_unit
from swarm.weights.codes import Codes

FEW_ROWS = 24
"""Up to here torch's product over packed codes is quicker on a CPU than unpacking them; see docs/performance.md."""


@dataclass(frozen=True)
class Int4Matrix:
    """A matrix [N, K] in 4 bits. Few bf16 or fp16 rows on a CPU have a kernel of their own; all others meet it unpacked."""

    rows: int
    columns: int
    group: int
    packed: Tensor  # uint8 [N padded to 16, K padded to g, / 2], in the kernel's order
    scales: Tensor  # [G, N padded, 2]: scale and zero, in the dtype of the rows

    @classmethod
    def of(cls, codes: Codes, dtype: torch.dtype) -> Int4Matrix:
        """From codes on a CPU, inputs in their own order; only scales and zeros are rounded, to `dtype`."""
        assert codes.order is None, "see `swarm.model.quant.ordered`"
        (rows, columns), group = codes.q.shape, codes.form.group
        packed = planes.padded(codes.q, group)
        zero = codes.zero if codes.zero is not None else torch.zeros_like(codes.scale)
        return cls(rows, columns, group, packed, planes.lines(codes.scale, zero, packed, group, dtype)[0])

    def to(self, device: torch.device | str) -> Int4Matrix | CardMatrix:
        if torch.device(device).type == "cuda":
            return on_card.int4(self.packed, self.scales, self.rows, self.columns, torch.device(device))
        return replace(self, packed=self.packed.to(device), scales=self.scales.to(device))

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def device(self) -> torch.device:
        return self.packed.device

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.packed, self.scales)

    def product(self, x: Tensor) -> Tensor:
        """`x` [n, K] times the transpose of the matrix: [n, N]."""
        x, few, unit, many = planes.widened(x, self.packed), dots(), matrix_unit(), many_codes()
        if few and few.takes(x, self.packed, self.group):
            return few.product(x, self.packed, self.scales)[:, : self.rows]
        if many and many.takes(x, self.packed, self.group):
            return many.product(x, self.packed, self.scales)[:, : self.rows]
        if unit and unit.takes4(x, self.packed, self.group):
            return unit.product4(x, self.packed, self.scales)[:, : self.rows]
        if planes.has_kernel(x, FEW_ROWS):
            return planes.few(x, self.packed, self.group, self.scales)[:, : self.rows]
        return planes.many(x, [self.packed], self.scales.unsqueeze(0))[:, : self.rows]

    def dense(self) -> Tensor:
        """The matrix [N, K] in the dtype of its scales."""
        return planes.dense([self.packed], self.scales.unsqueeze(0))[: self.rows, : self.columns]
