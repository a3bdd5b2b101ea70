"""The experts of one Block that are on a card, computed for rows whose choice never leaves it.

R: rows   H: hidden   F: ffn   S: experts a row chose
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.model.kernels.bank import Bank, Packed
from swarm.model.kernels.card_matrix import CardMatrix
from swarm.model.kernels.port import Kernels


@dataclass(frozen=True)
class ChosenExperts:
    """SwiGLU experts (arXiv 2002.05202) by their number; two launches, whatever was chosen."""

    kernels: Kernels
    w13: Bank  # [2F, H] each
    w2: Bank  # [H, F] each

    @classmethod
    def of(cls, pairs: Mapping[int, tuple[object, object]], kernels: Kernels) -> ChosenExperts | None:
        """From (w13, w2) by expert; None where a matrix is kept in a form that the kernels do not read."""
        numbers = range(max(pairs) + 1) if pairs else ()
        banks = [Bank.of([_packed(pairs[e][which]) if e in pairs else None for e in numbers]) for which in (0, 1)]
        if banks[0] is None or banks[1] is None or any(_packed(w) is None for pair in pairs.values() for w in pair):
            return None
        return cls(kernels, banks[0], banks[1])

    def no_choices(self, rows: int, each: int) -> Tensor:
        """Room on the card for what so many rows choose, [rows, each] int64: the first expert, until something is written."""
        return torch.zeros(rows, each, dtype=torch.int64, device=self.w13.like.codes.device)

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        """`x` [R, H], contiguous, through the experts `chosen` [R, S] int64, to unweighted outputs [R, S, H]."""
        gated = self.kernels.grouped(x, chosen, self.w13, gated=True)  # [R S, F]
        return self.kernels.grouped(gated, chosen, self.w2, by_slot=True).view(*chosen.shape, -1)

    def one(self, x: Tensor, expert: int) -> Tensor:
        """All rows `x` [n, H] through one expert: [n, H], the bits that `forward` gives."""
        return self.forward(x, x.new_full((x.shape[0], 1), expert, dtype=torch.int64))[:, 0]


def _packed(weight: object) -> Packed | None:
    if isinstance(weight, CardMatrix):
        return weight.packed
    return Packed.dense(weight) if isinstance(weight, Tensor) else None
