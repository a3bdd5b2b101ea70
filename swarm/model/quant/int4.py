"""Matrices of 4 bits: `w = (q - 8) * scale + zero`, a scale and a zero for each group along the input dimension.

n: rows   N: outputs   K: inputs   g: group   G: groups of a row
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.memory import num_bytes
from swarm.model.quant import int4_layout

FEW_ROWS = 32
"""Up to here torch's product over packed codes is quicker on a CPU than unpacking them; see docs/performance.md."""
TILE = 4
"""Blocks of rows that are unpacked at once."""
KERNEL_ROWS = 16
"""What the kernel wants the outputs to be a multiple of."""


@dataclass(frozen=True)
class Int4Matrix:
    """A matrix [N, K] in 4 bits. Few bf16 or fp16 rows on a CPU have a kernel of their own; all others meet it unpacked."""

    rows: int
    columns: int
    group: int
    packed: Tensor  # uint8 [N padded to 16, K padded to g, / 2], in the kernel's order
    scales: Tensor  # [G, N padded, 2]: scale and zero, in the dtype of the rows

    @classmethod
    def of(cls, q: Tensor, scale: Tensor, zero: Tensor, group: int, dtype: torch.dtype) -> Int4Matrix:
        """From codes [N, K] of 0 to 15, scales and zeros [N, G], all on a CPU; only scales and zeros are rounded, to `dtype`."""
        rows, columns = q.shape
        more, wider = -rows % KERNEL_ROWS, scale.shape[1] * group - columns
        packed = int4_layout.pack(F.pad(q, (0, wider, 0, more), value=8))
        pairs = F.pad(torch.stack((scale, zero), -1), (0, 0, 0, 0, 0, more))  # [N, G, 2]
        return cls(rows, columns, group, packed, pairs.transpose(0, 1).to(dtype).contiguous())

    def to(self, device: torch.device | str) -> Int4Matrix:
        return replace(self, packed=self.packed.to(device), scales=self.scales.to(device))

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.packed, self.scales)

    def product(self, x: Tensor) -> Tensor:
        """`x` [n, K] times the transpose of the matrix: [n, N]."""
        x = F.pad(x, (0, 2 * self.packed.shape[1] - self.columns)) if self.columns != 2 * self.packed.shape[1] else x
        if x.shape[0] <= FEW_ROWS and x.dtype is not torch.float32 and x.device.type == "cpu":
            few: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.contiguous(), self.packed, self.group, self.scales)
            return few[:, : self.rows]
        out = x.new_empty(x.shape[0], self.packed.shape[0])
        blocks = int4_layout.blocks(self.packed.shape[0])
        for at in range(0, len(blocks), TILE):
            tile = blocks[at : at + TILE]
            torch.mm(x, self._unpacked(tile), out=out[:, tile[0].start : tile[-1].stop])
        return out[:, : self.rows]

    def dense(self) -> Tensor:
        """The matrix [N, K] in the dtype of its scales."""
        blocks = int4_layout.blocks(self.packed.shape[0])
        return self._unpacked(blocks).t()[: self.rows, : self.columns].contiguous()

    def _unpacked(self, blocks: list[range]) -> Tensor:
        """Some outputs of the transposed matrix, [K, m], in the dtype of the scales; each weight is rounded once."""
        codes = torch.cat([int4_layout.unpack(self.packed, rows) for rows in blocks], -1)  # [K, m]
        pairs = self.scales[:, blocks[0].start : blocks[-1].stop].permute(2, 0, 1).unsqueeze(2).contiguous()  # [2, G, 1, m]
        grouped = codes.to(self.scales.dtype).view(-1, self.group, codes.shape[1])  # [G, g, m]
        return torch.addcmul(pairs[1], grouped, pairs[0]).flatten(0, 1)
