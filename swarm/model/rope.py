"""Rotary position embedding (arXiv 2104.09864), halves rotated as Hugging Face checkpoints store them.

R: rows   N: heads   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log, pi

import torch
from torch import Tensor

from swarm.config import RopeScaling
from swarm.model.native.between import between

UNSCALED = RopeScaling()


@dataclass(frozen=True)
class Angles:
    """cos and sin of each row's angles, fp32; computed once a Stage call and used by all its Blocks."""

    cos: Tensor  # [R, 1, D]
    sin: Tensor  # [R, 1, D], its first half negated, so that rotating is one roll

    @classmethod
    def of(cls, positions: Tensor, head_dim: int, theta: float, scaling: RopeScaling = UNSCALED) -> Angles:
        """The angles of `positions` [R]: position x theta^(-2i/D) for i in 0..D/2, scaled as the model wants it."""
        made = _kept if positions.device.type == "cpu" else frequencies  # what a card records must be made there
        turns = made(head_dim, theta, scaling, positions.device)  # [D/2]
        angles = torch.outer(positions.float(), turns)  # [R, D/2]
        cos, sin = angles.cos(), angles.sin()
        if scaling.attention != 1.0:
            cos, sin = cos * scaling.attention, sin * scaling.attention
        return cls(torch.cat((cos, cos), -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1))

    def at(self, rows: Tensor | int) -> Angles:
        """Those of some of the rows, [n] int64, or of one."""
        if isinstance(rows, int):
            return Angles(self.cos[rows : rows + 1], self.sin[rows : rows + 1])
        return Angles(self.cos.index_select(0, rows), self.sin.index_select(0, rows))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate `x` [R, N, D] by each row's angles, in fp32; the result has the dtype of `x`."""
        here = between()
        at_once = here.rotated(x, self.cos, self.sin) if here else None
        if at_once is not None:
            return at_once
        wide = x.float()
        turned = torch.roll(wide, wide.shape[-1] // 2, -1)  # (x2, x1)
        return torch.addcmul(wide * self.cos, turned, self.sin).to(x.dtype)


def frequencies(head_dim: int, theta: float, scaling: RopeScaling, device: torch.device) -> Tensor:
    """Radians a position, [D/2] fp32; nothing is copied to the device."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    plain = 1.0 / theta**exponents
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "llama3":
        return _llama3(plain, scaling)
    if scaling.kind == "yarn":
        return _yarn(plain, theta, scaling)
    return plain


_kept = lru_cache(frequencies)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Waves longer than the first context over `low` are stretched by `factor`, those shorter than it over `high` are not."""
    waves = 2 * pi / plain
    blend = (scaling.original / waves - scaling.low) / (scaling.high - scaling.low)
    blended = (1 - blend) * plain / scaling.factor + blend * plain
    kept = torch.where(waves < scaling.original / scaling.high, plain, blended)
    return torch.where(waves > scaling.original / scaling.low, plain / scaling.factor, kept)


def _yarn(plain: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """Dimensions that turn more than `high` times in the first context stay, those below `low` are stretched (section 3.2)."""
    head_dim = 2 * plain.shape[0]

    def dimension(rotations: float) -> float:
        return head_dim * log(scaling.original / (rotations * 2 * pi)) / (2 * log(theta))

    first, last = dimension(scaling.high), dimension(scaling.low)
    if scaling.truncate:
        first, last = floor(first), ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    places = torch.arange(plain.shape[0], dtype=torch.float32, device=plain.device)
    stretched = ((places - first) / (last - first if last != first else 0.001)).clamp(0, 1)
    return plain / scaling.factor * stretched + plain * (1 - stretched)
