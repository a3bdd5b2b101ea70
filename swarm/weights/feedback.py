"""Matrices into 4-bit codes that make up for each other: what one code gets wrong, the codes behind it in its row put right.

Input by input, the error of each code is passed on to the weights of later inputs, as far as those tend to come with it. Each
group's line (scale and zero) is found when its turn comes, by least squares over what its weights have become by then.
Source: GPTQ (arXiv 2210.17323, section 3), here within spans of the inputs, which are guessed: `swarm.weights.inputs`.

N: outputs   K: inputs   G: groups of a row   s: inputs of a span   g: inputs of a group   r: outputs worked on at once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.bits import Form
from swarm.model.memory import scratch
from swarm.weights.codes import MIDDLE, Codes
from swarm.weights.inputs import Inputs
from swarm.weights.spread_out import spread_out

HIGHEST = 15
"""The highest code, from 0."""
ROUNDS = 3
"""Turns of codes and line for each group."""
SPAN = 256
"""Inputs whose errors reach each other; a multiple of every group."""
OUTPUTS = 2048
"""Outputs worked on at once: a group of them stays in a core's cache, and starting operations takes less than doing them."""


@dataclass(frozen=True)
class Span:
    """Some inputs: how errors go on between them.

    Args:
        first: the first of them.
        onward: [s, s]: above the diagonal, what of an error is taken from the weights of each later input.
        importance: [s]: the mean square of each input.
    """

    first: int
    onward: Tensor
    importance: Tensor


def spans_of(inputs: Inputs, columns: int) -> list[Span]:
    """What a matrix of so many columns needs to know of the inputs that it is taken to meet: less than they take themselves."""
    return spread_out(lambda at: _span(inputs, at), columns, SPAN)


def with_feedback(w: Tensor, form: Form, spans: Sequence[Span], dtype: torch.dtype) -> tuple[Codes, float, float]:
    """Codes for `w` [N, K], any float dtype, on a CPU; their squared error, and the weights' squares.

    They are the same whatever the number of threads, and in pieces of a multiple of `OUTPUTS` the same as all at once.

    Args:
        form: of kind int4.
        spans: all of the inputs, in order.
        dtype: that scales and zeros will be rounded to: codes are chosen for the rounded ones.
    """
    rows, columns = w.shape
    q, lines = scratch(w.shape, torch.uint8), torch.empty(2, rows, -(-columns // form.group))
    firsts = range(0, rows, OUTPUTS)

    def code(number: slice) -> tuple[float, float]:
        """Find the codes of some outputs for one span: their squared error, and the squares."""
        at, which = divmod(number.start, len(spans))
        span, outputs = spans[which], slice(firsts[at], firsts[at] + OUTPUTS)
        inputs = slice(span.first, span.first + len(span.importance))
        own = w[outputs, inputs].float().contiguous().t()  # [s, r]; a part that is contiguous is turned many times as fast
        x = own.clone(memory_format=torch.contiguous_format)
        codes = torch.empty(x.shape, dtype=torch.uint8)
        groups = slice(inputs.start // form.group, -(-inputs.stop // form.group))
        lines[:, outputs, groups] = _code(x, span, form.group, dtype, codes)
        q[outputs, inputs] = codes.t().contiguous()
        return float(x.sub_(own).square_().sum()), float(own.square().sum())

    found = spread_out(code, len(firsts) * len(spans), 1)
    return Codes(q, lines[0], lines[1], form), sum(lost for lost, _ in found), sum(squares for _, squares in found)


def _span(inputs: Inputs, at: slice) -> Span:
    h = inputs.moments(at)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    return Span(at.start, (upper / upper.diagonal().unsqueeze(1)).float(), h.diagonal().float())


def _code(x: Tensor, span: Span, group: int, dtype: torch.dtype, codes: Tensor) -> Tensor:
    """Codes [s, r] of a span's weights `x` [s, r], which become what those say: scales and zeros [2, r, groups]."""
    lines, room = [], torch.empty(2, min(group, len(x)), x.shape[1])
    for first in range(0, len(x), group):
        mine, rest = slice(first, first + group), slice(first + group, None)
        spare, units = room[:, : len(x[mine])]
        scale, zero = (each.to(dtype).float() for each in _line(x[mine], span.importance[mine], spare, units))
        step = torch.where(scale > 0, scale, torch.ones_like(scale))
        torch.sub(x[mine], zero, out=units).div_(step).add_(MIDDLE["int4"])
        _coded(units, span.onward[mine, mine], spare)
        codes[mine] = spare
        torch.addmm(x[rest], span.onward[mine, rest].t(), units.mul_(step), alpha=-1, out=x[rest])
        torch.addcmul(zero, spare.sub_(MIDDLE["int4"]), scale, out=x[mine])
        lines.append(torch.stack((scale, zero)))
    return torch.stack(lines, -1)


def _coded(units: Tensor, onward: Tensor, codes: Tensor) -> None:
    """Codes of a group's weights `units` [g, r], in steps from code 0; these become the errors that were made."""
    for i, (unit, code) in enumerate(zip(units.unbind(), codes.unbind(), strict=True)):
        if i:
            torch.addmv(unit, units[:i].t(), onward[:i, i], alpha=-1, out=unit)
        torch.round(unit, out=code).clamp_(0, HIGHEST)
        unit.sub_(code)


def _line(x: Tensor, importance: Tensor, q: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero [r] for a group's weights `x` [g, r]: from their range, then by weighted least squares, in turns with codes.

    Where all weights of a group are equal its zero is that weight and its scale 0: beside a scale it would be rounded with it.

    Args:
        q, spare: like `x`: memory to work in.
    """
    low, high = x.aminmax(dim=0)
    step = (high - low) / HIGHEST
    scale = torch.where(step > 0, step, torch.ones_like(step))
    share = importance / importance.sum()  # [g]
    mean = share @ x
    for _ in range(ROUNDS):
        torch.sub(x, low, out=q).div_(scale).round_().clamp_(0, HIGHEST)
        middle = share @ q
        square = share @ torch.mul(q, q, out=spare) - middle.square()
        slope = (share @ q.mul_(x) - middle * mean) / square
        scale = torch.where((square > 0) & (slope > 0), slope, scale)
        low = mean - scale * middle
    varied = step > 0
    return torch.where(varied, scale, torch.zeros_like(scale)), torch.where(varied, low + MIDDLE["int4"] * scale, x[0])
