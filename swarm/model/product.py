"""The one product of a Block: rows times a weight matrix, by the kernel that reads the weight fastest.

n: rows   K: inputs   M: outputs
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.memory import evened
from swarm.model.native.many_rows import many_rows
from swarm.model.native.one_row import one_row
from swarm.model.native.several_rows import several_rows
from swarm.model.quant.ordered import Ordered, Quantized
from swarm.model.quant.stacked import Stacked

Weight = Tensor | Quantized | Ordered | Stacked
"""A matrix [M, K], in whatever form it is kept."""


def product(x: Tensor, w: Weight) -> Tensor:
    """`x` [n, K] times the transpose of `w` [M, K]: [n, M], in either memory order.

    In bf16 on a CPU the weight is the left factor: `F.linear` copies a right one into blocks at every call, which costs
    as much as reading it (measured: 1.5 times the bandwidth at 2 to 16 rows). What is compiled for so many rows comes first.
    """
    if not isinstance(w, Tensor):
        return w.product(x)
    if w.dtype is not torch.bfloat16 or w.device.type != "cpu":
        return F.linear(x, w)
    one = one_row()
    if one and one.takes(x, w) and x.is_contiguous():
        return one.product(x, w)
    if x.shape[0] == 1:
        return torch.mv(w, x[0]).unsqueeze(0)
    several = several_rows()
    if several and several.takes(x, w):
        return several.product(x.contiguous(), w)
    many = many_rows()
    if many and many.takes(x, w):
        return many.product(x, w)
    return torch.mm(w, evened(x).t()).t()[: x.shape[0]]
