"""Matrices into few bits: codes, scales and zeros of least squared error, group by group along the input dimension.

Nothing but the weights is looked at. Each group starts from the range that it spans; then codes and the line through them are
improved in turns. (Starts that clip a group's outliers reach a smaller error, and answers that are further off.)
Source: alternating least squares, as in Lloyd's quantizer (IEEE Trans. Inf. Theory 28(2), 1982) with levels on a line.

N: outputs   K: inputs   G: groups of a row   g: weights of a group
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 15
"""The highest code of 4 bits."""
ROUNDS = 4
"""Turns of codes and line; more gain less than a fiftieth of the error."""
CHUNK_WEIGHTS = 1 << 17
"""Weights worked on at once: what a core's own cache holds, since each is passed over some hundred times."""


@dataclass(frozen=True)
class Codes:
    """A matrix as `w = (q - 8) * scale + zero`, in fp32.

    Args:
        q: uint8 [N, K], 0 to 15.
        scale: [N, G].
        zero: [N, G].
        group: g; the last group of a row may have fewer weights.
    """

    q: Tensor
    scale: Tensor
    zero: Tensor
    group: int


def quantize_int4(w: Tensor, group: int) -> Codes:
    """`w` [N, K], any float dtype, as 4-bit codes."""
    columns = w.shape[1]
    # A short group is filled up with what it has, which leaves its range as it is.
    w = F.pad(w.float(), (0, -columns % group), mode="replicate") if columns % group else w
    flat = w.reshape(-1, group)
    q = torch.empty(flat.shape, dtype=torch.uint8)
    scale, zero = torch.empty(len(flat)), torch.empty(len(flat))
    step = max(1, CHUNK_WEIGHTS // group)
    for at in range(0, len(flat), step):
        part = slice(at, at + step)
        q[part], scale[part], zero[part] = _best(flat[part].float())
    groups = w.shape[1] // group
    return Codes(q.view(w.shape)[:, :columns], scale.view(-1, groups), (zero + 8 * scale).view(-1, groups), group)


def rounded_int4(w: Tensor, group: int) -> Codes:
    """The same by plain rounding between each group's least and greatest weight: what `quantize_int4` is measured against."""
    x = w.reshape(-1, group).float()
    low, high = x.aminmax(dim=-1, keepdim=True)
    groups, scale, zero = w.shape[1] // group, _spread(high - low), low
    return Codes(
        _codes(x, scale, zero).to(torch.uint8).view(w.shape), scale.view(-1, groups), (zero + 8 * scale).view(-1, groups), group
    )


def quantize_int8(w: Tensor) -> tuple[Tensor, Tensor]:
    """`w` [N, K] as int8 codes [N, K] and a scale a row [N] in fp32, so that `w = q * scale`."""
    q, scale = torch.empty(w.shape, dtype=torch.int8), torch.empty(w.shape[0])
    step = max(1, CHUNK_WEIGHTS // w.shape[1])
    for at in range(0, w.shape[0], step):
        x = w[at : at + step].float()
        most = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        codes = (x / most).round_()
        q[at : at + step], scale[at : at + step] = codes.to(torch.int8), most[:, 0]
    return q, scale


def _best(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and lowest levels for groups `x` [n, g]: from their range, improved in turns, never worse than it."""
    low, high = x.aminmax(dim=-1, keepdim=True)
    mean = x.mean(-1, keepdim=True)
    centred = x - mean
    scale, zero = _spread(high - low), low
    for _ in range(ROUNDS):
        scale, zero = _line(_codes(x, scale, zero), centred, mean, scale)
    return _codes(x, scale, zero).to(torch.uint8), scale[:, 0], zero[:, 0]


def _codes(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return torch.sub(x, zero).div_(scale).round_().clamp_(0, LEVELS)


def _line(q: Tensor, centred: Tensor, mean: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and lowest level of least squares for the codes `q`; where all codes are one, the scale stays."""
    middle = q.mean(-1, keepdim=True)
    q = q - middle
    variance = q.square().sum(-1, keepdim=True)
    slope = torch.mul(q, centred).sum(-1, keepdim=True) / variance
    scale = torch.where((variance > 0) & (slope > 0), slope, before)
    return scale, mean - scale * middle


def _spread(width: Tensor) -> Tensor:
    """The step between levels that span `width`; any, where all weights of a group are equal."""
    return torch.where(width > 0, width / LEVELS, torch.ones_like(width))
