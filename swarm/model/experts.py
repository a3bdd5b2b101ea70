"""Experts of Blocks, behind a port: the local twin is here, the one that asks another Worker is in `swarm.worker`.

n: rows that an expert is given   H: hidden   F: ffn
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from swarm.config import Activation
from swarm.model.kernels.chosen import ChosenExperts
from swarm.model.kernels.port import FEW_ROWS, Kernels
from swarm.model.memory import evened, gather, num_bytes
from swarm.model.product import Weight, product
from swarm.model.swiglu import swiglu

SILU = Activation()


@dataclass(frozen=True)
class ExpertWeights:
    """One SwiGLU expert (arXiv 2002.05202); w1 and w3 are one product."""

    w13: Weight  # [2F, H]
    w2: Weight  # [H, F]
    activation: Activation = SILU
    b13: Tensor | None = None  # [2F]
    b2: Tensor | None = None  # [H]

    def forward(self, x: Tensor) -> Tensor:
        """`x` [n, H], contiguous and aligned (see `swarm.model.memory`), to the unweighted output [n, H]."""
        at_once = swiglu(x, self.w13, self.w2) if self.plain else None
        if at_once is not None:
            return at_once
        n, x = x.shape[0], evened(x)  # once for both products, and what is between them has no gaps
        both = product(x, self.w13)  # [n, 2F]
        if self.b13 is not None:
            both = both + self.b13
        gate, up = both.chunk(2, -1)  # [n, F] each
        y = product(gated(gate, up, self.activation), self.w2)
        return (y if self.b2 is None else y + self.b2)[:n].contiguous()

    @property
    def plain(self) -> bool:
        """Whether it is two products and SiLU, without more."""
        return not self.activation.limit and self.b13 is None and self.b2 is None

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.w13, self.w2, self.b13, self.b2)


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """`gate` and `up` [n, F] to what w2 meets [n, F]; see `Activation`."""
    if not activation.limit:
        return F.silu(gate).mul_(up)
    gate, up = gate.clamp(max=activation.limit), up.clamp(-activation.limit, activation.limit)
    return (up + 1).mul_(gate * (gate * activation.alpha).sigmoid_())


@dataclass(frozen=True)
class SharedExpert:
    """The expert that all rows of a Block meet, beside those they choose (arXiv 2401.06066) or instead of them."""

    weights: ExpertWeights
    gate: Tensor | None = None  # [1, H]

    def forward(self, x: Tensor) -> Tensor:
        """`x` [R, H] to the output [R, H], times the sigmoid of its gate where it has one."""
        y = self.weights.forward(x)
        return y if self.gate is None else y * F.linear(x, self.gate).sigmoid_()

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.weights, self.gate)


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
    chosen: Mapping[int, ChosenExperts] = field(default_factory=dict)
    """Block → its experts, where a card's kernels take few rows of them: always those, wherever the rows come from."""

    @classmethod
    def of(cls, weights: Mapping[tuple[int, int], ExpertWeights], kernels: Kernels | None) -> LocalExperts:
        """With the kernels of the Device that they are on."""
        blocks: dict[int, dict[int, tuple[object, object]]] = {}
        for (block, expert), its in weights.items() if kernels else ():
            if its.plain:
                blocks.setdefault(block, {})[expert] = (its.w13, its.w2)
        found = {block: ChosenExperts.of(pairs, kernels) for block, pairs in blocks.items() if kernels}
        return cls(weights, {block: chosen for block, chosen in found.items() if chosen is not None})

    def ask(self, block: int, hidden: Tensor, rows: Mapping[int, Tensor]) -> Callable[[], dict[int, Tensor]]:
        """See `ExpertPort.ask`."""
        return lambda: {e: self._forward(block, e, gather(hidden, index)) for e, index in rows.items()}

    def _forward(self, block: int, expert: int, x: Tensor) -> Tensor:
        if block in self.chosen and x.shape[0] <= FEW_ROWS:
            return self.chosen[block].one(x, expert)
        return self.weights[block, expert].forward(x)
