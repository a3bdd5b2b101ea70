"""What a matrix is taken to meet, guessed from weights alone: no text is read, and nothing but a part's own matrices.

Training adds to a matrix products of errors and of inputs that it met, so its rows lie where its inputs do. Rows drawn from there
go through the first matrices of a part, and what these answer is what its next one meets.

n: rows   N: outputs   K: inputs   D: width of a head
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarm.config import Activation
from swarm.model.experts import gated
from swarm.weights.spread_out import spread_out

OWN_ROWS = 2048
"""Of a matrix, looked at for what it meets."""
OWN_NOISE = 0.7
"""Beside inputs that are a matrix's own rows, by their mean square: they tell less than rows that were computed."""
DRAWN = 512
"""Rows that are drawn: twice the inputs that are looked at together."""
DRAWN_NOISE = 0.15
OUTPUTS = 1024
"""Of a matrix at once."""


@dataclass(frozen=True)
class Inputs:
    """Rows [n, K] fp32, and how much noise beside them, by their mean square."""

    rows: Tensor
    noise: float

    @classmethod
    def of(cls, *matrices: Tensor) -> Inputs:
        """What some matrices [N, K] meet that all meet the same: some of their rows."""
        step = max(1, -(-sum(len(m) for m in matrices) // OWN_ROWS))
        return cls(torch.cat([m[::step].float() for m in matrices]), OWN_NOISE)

    def moments(self, at: slice) -> Tensor:
        """Mean products [s, s] fp64 of some inputs, where the mean square is 1 before the noise."""
        x = self.rows[:, at]
        h = (x.t() @ x).double()
        mean = h.diagonal().mean()
        h = h / mean if mean > 0 else h
        h.diagonal().add_(self.noise)
        return h


@dataclass
class Rehearsal:
    """Rows as a part's first matrices may meet them, and what these answer.

    Args:
        rows: [DRAWN, K], drawn where the first matrix is seen.
        answers: [DRAWN, N] of each matrix, in the order in which they come.
    """

    rows: Tensor | None = None
    answers: list[Tensor] = field(default_factory=list)

    def see(self, w: Tensor) -> None:
        """Have the next matrix [N, K], fp32, answer."""
        self.rows = self.rows if self.rows is not None else _drawn(w)
        self.answers.append(_product(self.rows, w.t()))

    def gated(self, activation: Activation) -> Inputs | None:
        """What w2 meets after w1 and w3, or after both as one; None where they were not seen."""
        if not self.answers:
            return None
        gate, up = self.answers if len(self.answers) == 2 else self.answers[0].chunk(2, -1)
        return Inputs(gated(gate, up, activation), DRAWN_NOISE)

    def attended(self, heads: int, head_dim: int) -> Inputs | None:
        """What wo meets after q, k and v; None where they were not seen.

        Heads that share values attend to the same positions half of the time.
        """
        if not self.answers:
            return None
        values = self.answers[-1].view(DRAWN, -1, head_dim)  # [n, KV, D]
        mine = torch.arange(heads) // (heads // values.shape[1])  # [heads]
        apart = [values[:, kv].roll(1 + head, 0) for head, kv in enumerate(mine.tolist())]
        return Inputs((values[:, mine] + torch.stack(apart, 1)).flatten(1), DRAWN_NOISE)


def _drawn(w: Tensor) -> Tensor:
    """Rows [n, K] as long as a norm leaves them: random sums of a matrix's rows, beside noise. The same for the same matrix."""
    own, random = Inputs.of(w).rows, torch.Generator().manual_seed(0)
    size = own.square().sum(0).mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    mixed = _product(torch.randn(DRAWN, len(own), generator=random), own / size)
    x = mixed.add_(torch.randn(mixed.shape, generator=random), alpha=OWN_NOISE**0.5)
    return x.mul_(x.shape[1] ** 0.5 / x.norm(dim=-1, keepdim=True))


def _product(x: Tensor, w: Tensor) -> Tensor:
    """`x` [n, K] times `w` [K, M], in pieces that any number of threads computes alike: [n, M]."""
    return torch.cat(spread_out(lambda outputs: x @ w[:, outputs], w.shape[1], OUTPUTS), 1)
