"""Matrices of 8 bits: `w = q * scale`, a scale for each output.

n: rows   N: outputs   K: inputs
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.memory import num_bytes

FEW_ROWS = 16
"""Up to here torch's product over codes is quicker on a CPU than unpacking them and the dense product; see docs/performance.md."""
TILE_ROWS = 1024
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
    def of(cls, q: Tensor, scale: Tensor, dtype: torch.dtype) -> Int8Matrix:
        """From codes [N, K] and scales [N]; only those are rounded, to `dtype`."""
        return cls(q.shape[1], F.pad(q, (0, -q.shape[1] % KERNEL_COLUMNS)), scale.to(dtype))

    def to(self, device: torch.device | str) -> Int8Matrix:
        return replace(self, q=self.q.to(device), scale=self.scale.to(device))

    @property
    def shape(self) -> tuple[int, int]:
        return self.q.shape[0], self.columns

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.q, self.scale)

    def product(self, x: Tensor) -> Tensor:
        """`x` [n, K] times the transpose of the matrix: [n, N]."""
        if x.shape[0] <= FEW_ROWS and x.device.type == "cpu":
            return torch._weight_int8pack_mm(F.pad(x, (0, self.q.shape[1] - self.columns)).contiguous(), self.q, self.scale)
        out = x.new_empty(x.shape[0], self.q.shape[0])
        for at in range(0, self.q.shape[0], TILE_ROWS):
            part = slice(at, at + TILE_ROWS)
            torch.mm(x, self._unpacked(part).t(), out=out[:, part])
        return out

    def dense(self) -> Tensor:
        """The matrix [N, K] in the dtype of its scales."""
        return self._unpacked(slice(None)).contiguous()

    def _unpacked(self, part: slice) -> Tensor:
        return self.q[part, : self.columns].to(self.scale.dtype).mul_(self.scale[part].unsqueeze(1))
