"""What a matrix is taken to meet, guessed from weights alone: no text is read, and nothing but a part's own matrices.

Training adds to a matrix products of errors and of inputs that it met, so its rows lie where its inputs do. Rows drawn from there
go through the first matrices of a part, and what these answer is what its next one meets.

n: rows   N: outputs   K: inputs   D: width of a head
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.config import Activation
from swarm.model.experts import gated
from swarm.model.memory import scratch
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
        rows, at = scratch((sum(-(-len(m) // step) for m in matrices), matrices[0].shape[1])), 0
        for m in matrices:
            some = m[::step]
            rows[at : at + len(some)] = some
            at += len(some)
        return cls(rows, OWN_NOISE)

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
        activation: what w1 and w3, or both as one, are followed by; None: of q, k and v the last alone counts.
        rows: [DRAWN, K], drawn where the first matrix is seen.
        answers: [DRAWN, N] of w1 or of the last, joined with those of w3 as these come.
    """

    activation: Activation | None = None
    rows: Tensor | None = None
    answers: Tensor | None = None
    _both: bool = False

    def see(self, w: Tensor) -> None:
        """Have the next matrix [N, K], any float dtype, answer."""
        rows = self.rows = self.rows if self.rows is not None else _drawn(w)
        if self.activation is None or self.answers is None:
            self.answers = scratch((len(rows), len(w)))
            _fill(self.answers, lambda outputs: rows @ _floats(w[outputs]).t())
            return
        gate, activation, self._both = self.answers, self.activation, True
        _fill(gate, lambda outputs: gated(gate[:, outputs], rows @ _floats(w[outputs]).t(), activation))

    def gated(self) -> Inputs | None:
        """What w2 meets after w1 and w3, or after both as one; None where they were not seen. It is handed over, not kept."""
        answers, self.answers = self.answers, None
        if answers is None or self.activation is None:
            return None
        if not self._both:
            gate, up = answers.chunk(2, -1)
            answers = gated(gate, up, self.activation)
        return Inputs(answers, DRAWN_NOISE)

    def attended(self, heads: int, head_dim: int) -> Inputs | None:
        """What wo meets after q, k and v; None where they were not seen.

        Heads that share values attend to the same positions half of the time.
        """
        if self.answers is None:
            return None
        values = self.answers.view(DRAWN, -1, head_dim)  # [n, KV, D]
        mine = torch.arange(heads) // (heads // values.shape[1])  # [heads]
        apart = [values[:, kv].roll(1 + head, 0) for head, kv in enumerate(mine.tolist())]
        return Inputs((values[:, mine] + torch.stack(apart, 1)).flatten(1), DRAWN_NOISE)


def _drawn(w: Tensor) -> Tensor:
    """Rows [n, K] as long as a norm leaves them: random sums of a matrix's rows, beside noise. The same for the same matrix."""
    own, random = Inputs.of(w).rows, torch.Generator().manual_seed(0)
    squares = torch.mul(own, own, out=scratch(own.shape)).sum(0)
    own.div_(squares.mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny))
    sums, x = torch.randn(DRAWN, len(own), generator=random), torch.empty(DRAWN, own.shape[1])
    _fill(x, lambda outputs: sums @ own[:, outputs])
    x.add_(torch.randn(x.shape, generator=random), alpha=OWN_NOISE**0.5)
    return x.mul_(x.shape[1] ** 0.5 / x.norm(dim=-1, keepdim=True))


def _fill(out: Tensor, piece: Callable[[slice], Tensor]) -> None:
    """Columns of `out` [n, M], in pieces that any number of threads computes alike."""

    def put(outputs: slice) -> None:
        out[:, outputs] = piece(outputs)

    spread_out(put, out.shape[1], OUTPUTS)


def _floats(w: Tensor) -> Tensor:
    """`w` in fp32."""
    return w if w.dtype is torch.float32 else scratch(w.shape).copy_(w)
