"""Matrices into few bits: codes, and scales and zeros of least squared error, group by group along the input dimension.

Nothing but the weights is looked at. In 4 bits each code makes up for the errors before it (`swarm.weights.feedback`). In 8 bits
each group starts from the range that it spans; then codes and the line through them are improved in turns.
Source: alternating least squares, as in Lloyd's quantizer (IEEE Trans. Inf. Theory 28(2), 1982) with levels on a line.

N: outputs   K: inputs   G: groups of a row   g: weights of a group
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.bits import Form
from swarm.model.memory import scratch
from swarm.weights.codes import MIDDLE, Codes
from swarm.weights.feedback import OUTPUTS, Span, spans_of, with_feedback
from swarm.weights.inputs import Inputs
from swarm.weights.spread_out import spread_out

LEVELS = {"int4": 15, "int8": 255}
"""The highest code, from 0."""
ROUNDS = 1
"""Turns of codes and line; more gain less than a fiftieth of the error."""
CHUNK_WEIGHTS = 1 << 17
"""Weights worked on at once: what a core's own cache holds, since each is passed over some hundred times."""
PIECE_WEIGHTS = 1 << 20
"""For each thread, of a matrix that comes in pieces: enough to do for all, little beside the matrix."""


@dataclass(frozen=True)
class Quantized:
    """What came of a matrix, or of some of its outputs.

    Args:
        lost: squared error of all its weights together.
        squares: those of the weights.
    """

    codes: Codes
    lost: float
    squares: float

    @property
    def error(self) -> float:
        """What was lost, beside the squares: 0 is none."""
        return self.lost / self.squares if self.squares else 0.0


@dataclass(frozen=True)
class _Part:
    """Some groups [n, g]: codes from 0 in fp32, scale [n, 1], and the weight of code 0 [n, 1]."""

    q: Tensor
    scale: Tensor
    low: Tensor


def quantize(w: Tensor, form: Form, inputs: Inputs | None = None, dtype: torch.dtype = torch.float32) -> Quantized:
    """`w` [N, K], any float dtype, on a CPU, in a form that is quantized.

    Args:
        inputs: what it is taken to meet; None: what its own rows say.
        dtype: what its scales and zeros will be rounded to.
    """
    return _quantized(w, form, spans_of(inputs or Inputs.of(w), w.shape[1]) if form.kind == "int4" else (), dtype)


def in_pieces(w: Tensor, form: Form, spans: Sequence[Span] | None, dtype: torch.dtype) -> Iterator[Quantized]:
    """The same codes for some outputs after the others, so that those of all need not be there at once.

    Args:
        spans: of what it is taken to meet; None: of what its own rows say.
    """
    if form.kind == "int4" and spans is None:
        spans = spans_of(Inputs.of(w), w.shape[1])
    step = OUTPUTS * max(1, PIECE_WEIGHTS * torch.get_num_threads() // (OUTPUTS * w.shape[1]))
    for at in range(0, len(w), step):
        yield _quantized(w[at : at + step], form, spans or (), dtype)


def _quantized(w: Tensor, form: Form, spans: Sequence[Span], dtype: torch.dtype) -> Quantized:
    if not form.group:
        return _symmetric(w)
    if form.kind == "int8":
        return _grouped(w, form, lambda x: _best(x, LEVELS[form.kind], ROUNDS))
    return Quantized(*with_feedback(w, form, spans, dtype))


def rounded(w: Tensor, form: Form) -> Quantized:
    """The same by plain rounding between each group's least and greatest weight: what `quantize` is measured against."""
    if not form.group:
        return _symmetric(w)
    return _grouped(w, form, lambda x: _best(x, LEVELS[form.kind], 0))


def _grouped(w: Tensor, form: Form, best: Callable[[Tensor], _Part]) -> Quantized:
    rows, columns = w.shape
    # A short group is filled up with what it has, which leaves its range as it is.
    short = -columns % form.group
    flat = (F.pad(w.float(), (0, short), mode="replicate") if short else w).reshape(-1, form.group)
    q = scratch(flat.shape, torch.uint8 if form.kind == "int4" else torch.int8)
    lines = torch.empty(2, len(flat))
    middle = MIDDLE[form.kind] if form.kind == "int4" else 128

    def improve(groups: slice) -> tuple[float, float]:
        """Squared error and squares of some groups."""
        x = flat[groups].float()
        part = best(x)
        q[groups] = (part.q if form.kind == "int4" else part.q - middle).to(q.dtype)
        lines[0, groups], lines[1, groups] = part.scale[:, 0], (part.low + middle * part.scale)[:, 0]
        return float(torch.addcmul(part.low - x, part.q, part.scale).square_().sum()), float(x.square().sum())

    lost, all_of_it = _summed(spread_out(improve, len(flat), max(1, CHUNK_WEIGHTS // form.group)))
    scale, zero = lines.view(2, rows, -1)
    codes = Codes(q.view(rows, columns + short)[:, :columns], scale, zero, form)
    if short:  # what filled the last group up is no loss
        lost, all_of_it = float((codes.dense() - w.float()).square_().sum()), float(w.float().square().sum())
    return Quantized(codes, lost, all_of_it)


def _symmetric(w: Tensor) -> Quantized:
    """8 bits, a scale a row and no zero."""
    q, scale = scratch(w.shape, torch.int8), torch.empty(w.shape[0], 1)

    def codes_of(rows: slice) -> tuple[float, float]:
        """Squared error and squares of some rows."""
        x = w[rows].float()
        most = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        codes = (x / most).round_()
        q[rows], scale[rows] = codes.to(torch.int8), most
        return float(torch.addcmul(-x, codes, most).square_().sum()), float(x.square().sum())

    lost, all_of_it = _summed(spread_out(codes_of, w.shape[0], max(1, CHUNK_WEIGHTS // w.shape[1])))
    return Quantized(Codes(q, scale, None, Form("int8")), lost, all_of_it)


def _summed(found: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(lost for lost, _ in found), sum(squares for _, squares in found)


def _best(x: Tensor, levels: int, rounds: int) -> _Part:
    """Codes and lines for groups `x` [n, g]: from their range, improved in turns, never worse than it."""
    low, high = x.aminmax(dim=-1, keepdim=True)
    mean = x.mean(-1, keepdim=True)
    centred = x - mean
    step = (high - low) / levels
    scale = torch.where(step > 0, step, torch.ones_like(step))
    for _ in range(rounds):
        scale, low = _line(_codes(x, scale, low, levels), centred, mean, scale)
    # Where all weights of a group are equal its zero is that weight: beside a scale it would be rounded with it.
    return _Part(_codes(x, scale, low, levels), scale * (step > 0), low)


def _codes(x: Tensor, scale: Tensor, low: Tensor, levels: int) -> Tensor:
    return torch.sub(x, low).div_(scale).round_().clamp_(0, levels)


def _line(q: Tensor, centred: Tensor, mean: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and lowest level of least squares for the codes `q`; where all codes are one, the scale stays."""
    middle = q.mean(-1, keepdim=True)
    q = q - middle
    variance = q.square().sum(-1, keepdim=True)
    slope = torch.mul(q, centred).sum(-1, keepdim=True) / variance
    scale = torch.where((variance > 0) & (slope > 0), slope, before)
    return scale, mean - scale * middle
