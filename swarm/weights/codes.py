"""A matrix in few bits, as integers and the lines through them, before it is packed for a kernel.

N: outputs   K: inputs   G: groups of a row   g: weights of a group
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.bits import Form

MIDDLE = {"int4": 8, "int8": 0}
"""The code whose weight is the group's zero."""


@dataclass(frozen=True)
class Codes:
    """`w[i, j] = (q[i, j] - middle) * scale[i, j // g] + zero[i, j // g]`, in fp32.

    Args:
        q: [N, K]: uint8 of 0 to 15 for int4 (middle 8), int8 for int8 (middle 0).
        scale: [N, G].
        zero: [N, G]; None where all are 0.
        form: kind and g (for int8, g of 0: one group a row); the last group of a row may have fewer weights.
        order: int64 [K]: column j of `q` meets input `order[j]` (GPTQ's act-order); None: in their own order.
    """

    q: Tensor
    scale: Tensor
    zero: Tensor | None
    form: Form
    order: Tensor | None = None

    def dense(self) -> Tensor:
        """The weights [N, K] in fp32, inputs in their own order."""
        columns = self.q.shape[1]
        group = torch.arange(columns) // (self.form.group or columns)
        w = (self.q.float() - MIDDLE[self.form.kind]) * self.scale.float()[:, group]
        if self.zero is not None:
            w += self.zero.float()[:, group]
        if self.order is None:
            return w
        return torch.empty_like(w).index_copy_(1, self.order, w)
