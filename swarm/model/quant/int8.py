"""Matrices of 8 bits: `w = q * scale`, a scale for each output.

n: rows   N: outputs   K: inputs
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.kernels.card_matrix import CardMatrix
from swarm.model.memory import evened, num_bytes
from swarm.model.native.one_row import one_row
from swarm.model.native.several_rows import several_rows
from swarm.model.quant import on_card
from swarm.model.quant.matrix_unit import matrix_unit
from swarm.weights.codes import Codes

FEW_ROWS = 16
"""Up to here torch's product over codes is quicker on a CPU than unpacking them and the dense product; see docs/performance.md."""
TILE_ROWS = 512
"""Outputs that are unpacked at once."""
KERNEL_COLUMNS = 16
"""What the kernel wants the inputs to be a multiple of: other widths it answers with garbage."""


@dataclass(frozen=True)
class Int8Matrix:
    """A matrix [N, K] in 8 bits."""

    columns: int
    q: Tensor  # int8 [N, K padded to 16]
    scale: Tensor  # [N], in the dtype of the rows

    @classmethod
    def of(cls, codes: Codes, dtype: torch.dtype) -> Int8Matrix:
        """From codes of a scale a row, inputs in their own order; only scales are rounded, to `dtype`."""
        assert codes.order is None and codes.zero is None and not codes.form.group, "see the other forms"
        columns = codes.q.shape[1]
        return cls(columns, F.pad(codes.q, (0, -columns % KERNEL_COLUMNS)), codes.scale[:, 0].to(dtype))

    def to(self, device: torch.device | str) -> Int8Matrix | CardMatrix:
        if torch.device(device).type == "cuda":
            return on_card.int8(self.q, self.scale, self.columns, torch.device(device))
        return replace(self, q=self.q.to(device), scale=self.scale.to(device))

    @property
    def shape(self) -> tuple[int, int]:
        return self.q.shape[0], self.columns

    @property
    def device(self) -> torch.device:
        return self.q.device

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.q, self.scale)

    def product(self, x: Tensor) -> Tensor:
        """`x` [n, K] times the transpose of the matrix: [n, N]."""
        wider = self.q.shape[1] - self.columns
        x, unit = F.pad(x, (0, wider)) if wider else x, matrix_unit()
        for kernel in (one_row(), several_rows()):
            if kernel and kernel.takes(x, self.q):
                return kernel.product(x.contiguous(), self.q, self.scale)
        if unit and unit.takes8(x, self.q):
            return unit.product8(x.contiguous(), self.q, self.scale)
        if x.shape[0] <= FEW_ROWS and x.device.type == "cpu":
            return torch._weight_int8pack_mm(x.contiguous(), self.q, self.scale)
        num_rows, x = x.shape[0], evened(x)
        out = x.new_empty(self.q.shape[0], x.shape[0])  # the weight is the left factor, as in `swarm.model.product`
        for at in range(0, self.q.shape[0], TILE_ROWS):
            part = slice(at, at + TILE_ROWS)
            torch.mm(self._unpacked(part), x.t(), out=out[part])
        return (out if x.dtype is torch.float16 else out.mul_(self.scale.unsqueeze(1))).t()[:num_rows]

    def dense(self) -> Tensor:
        """The matrix [N, K] in the dtype of its scales."""
        return self.q[:, : self.columns].to(self.scale.dtype).mul_(self.scale.unsqueeze(1))

    def _unpacked(self, part: slice) -> Tensor:
        """Some outputs, still without their scales; but with them in fp16, where sums of codes would be too large."""
        codes = self.q[part].to(self.scale.dtype)
        return codes.mul_(self.scale[part].unsqueeze(1)) if codes.dtype is torch.float16 else codes
