"""Matrices of 8 bits in groups: `w = q * scale + zero`, a scale and a zero for each group along the input dimension.

Kept as two planes of 4 bits, since that is what torch has a kernel for that knows groups. It knows none of 16: there it is given
the even and the odd groups one after the other, beside zeros. What is compiled here takes both planes and all groups at once.

n: rows   N: outputs   K: inputs   g: group   G: groups of a row   S: shares of the groups, 2 where g is 16
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from swarm.model.kernels.card_matrix import CardMatrix
from swarm.model.memory import num_bytes
from swarm.model.quant import on_card, planes
from swarm.model.quant.dots import dots
from swarm.weights.codes import Codes

FEW_ROWS = {16: 7, 32: 12}
"""By group: up to here torch's product over packed codes is quicker on a CPU than unpacking them; see docs/performance.md."""


@dataclass(frozen=True)
class Int8Groups:
    """A matrix [N, K] in 8 bits. Few bf16 or fp16 rows on a CPU have a kernel; all others meet it unpacked."""

    rows: int
    columns: int
    group: int
    packed: Tensor  # uint8 [2, N padded to 16, K padded to 32, / 2]: high halves, low halves, in the kernel's order
    scales: Tensor  # [S, G / S, N padded, 2]: scale and a plane's zero, in the dtype of the rows

    @classmethod
    def of(cls, codes: Codes, dtype: torch.dtype) -> Int8Groups:
        """From codes on a CPU, inputs in their own order; only scales and zeros are rounded, to `dtype`."""
        assert codes.order is None, "see `swarm.model.quant.ordered`"
        (rows, columns), group = codes.q.shape, codes.form.group
        q = codes.q.view(torch.uint8) ^ 128  # each code is 128 more, and none is below 0
        packed = torch.stack([planes.padded(half, group) for half in (q >> 4, q & 15)])
        zero = codes.zero if codes.zero is not None else torch.zeros_like(codes.scale)
        # Both planes share their lines: 16 (high - 8) + low - 8 is 8 less than the code, and the zero counts 16 + 1 times.
        return cls(rows, columns, group, packed, planes.lines(codes.scale, (zero + 8 * codes.scale) / 17, packed[0], group, dtype))

    def to(self, device: torch.device | str) -> Int8Groups | CardMatrix:
        if torch.device(device).type == "cuda":
            return on_card.int8_groups(self.packed, self.scales, (self.rows, self.columns, self.group), torch.device(device))
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
        x, at_once = planes.widened(x, self.packed[0]), dots()
        if at_once and at_once.takes(x, self.packed, self.group):
            return at_once.product(x, self.packed, self.scales)[:, : self.rows]
        if not planes.has_kernel(x, FEW_ROWS[self.group]):
            return planes.many(x, self.packed.unbind(), self.scales)[:, : self.rows]
        out, group = x.new_zeros(x.shape[0], self.packed.shape[1]), max(self.group, planes.KERNEL_GROUP)
        for share, scales in enumerate(self.scales):
            part = self._share(x, share)
            for plane, weight in zip(self.packed, (planes.RADIX, 1), strict=True):
                out.add_(planes.few(part, plane, group, scales), alpha=weight)
        return out[:, : self.rows]

    def dense(self) -> Tensor:
        """The matrix [N, K] in the dtype of its scales."""
        return planes.dense(self.packed.unbind(), self.scales)[: self.rows, : self.columns]

    def _share(self, x: Tensor, share: int) -> Tensor:
        """`x` with zeros where the inputs are of another share of the groups."""
        if len(self.scales) == 1:
            return x
        part, shape = torch.zeros_like(x), (-1, len(self.scales), self.group)
        part.unflatten(1, shape)[:, :, share] = x.unflatten(1, shape)[:, :, share]
        return part
