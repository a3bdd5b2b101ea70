"""Experts of Blocks, behind a port: the local twin is here, the one that asks another Worker is in `swarm.worker`.

n: rows that an expert is given   H: hidden   F: ffn
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from swarm.model.memory import gather, num_bytes
from swarm.model.product import Weight, product


@dataclass(frozen=True)
class ExpertWeights:
    """One SwiGLU expert (arXiv 2002.05202); w1 and w3 are one product."""

    w13: Weight  # [2F, H]
    w2: Weight  # [H, F]

    def forward(self, x: Tensor) -> Tensor:
        """`x` [n, H], contiguous and aligned (see `swarm.model.memory`), to the unweighted output [n, H]."""
        gate, up = product(x, self.w13).chunk(2, -1)  # [n, F] each
        return product(F.silu(gate).mul_(up), self.w2).contiguous()

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.w13, self.w2)


class ExpertPort(Protocol):
    """Where some experts are."""

    def ask(self, block: int, hidden: Tensor, rows: Mapping[int, Tensor]) -> Callable[[], dict[int, Tensor]]:
        """Start the experts `rows` names, each on its rows of `hidden` [R, H]; the answer is waited for when called.

        Args:
            rows: expert id (ascending) to indices [n] into `hidden`, int64, ascending without repeats.

        Returns:
            What waits, and gives expert id to unweighted output [n, H] in the dtype of `hidden`.
        """
        ...


class CopyPort(ExpertPort, Protocol):
    """Where copies are of experts that the asker holds too: an answer that does not come is computed here instead."""

    def willing(self) -> bool:
        """Whether asking is worth it now: its holder is not known to be gone or slow."""
        ...


@dataclass(frozen=True)
class LocalExperts:
    """Experts whose weights are here, by (block, expert). They are computed when they are waited for."""

    weights: Mapping[tuple[int, int], ExpertWeights]

    def ask(self, block: int, hidden: Tensor, rows: Mapping[int, Tensor]) -> Callable[[], dict[int, Tensor]]:
        """See `ExpertPort.ask`."""
        return lambda: {e: self.weights[block, e].forward(gather(hidden, index)) for e, index in rows.items()}
