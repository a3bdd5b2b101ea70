"""MXFP4: floats of 4 bits (one of sign, two of exponent, one of mantissa) times a power of two for every 32 of them.

Source: OCP Microscaling Formats (MX) 1.0, sections 5.2 and 5.3. N: outputs   K: inputs
"""

from __future__ import annotations

import torch
from torch import Tensor

from swarm.bits import Form
from swarm.weights.codes import Codes
from swarm.weights.layouts import MX_GROUP, Mxfp4
from swarm.weights.rearrange import in_turn, read_part

TWICE = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice the value of each code."""
EXPONENT = 127
"""What is added to the exponents as they are stored."""


def read_mxfp4_into(out: Tensor, entry: Mxfp4, part: int | None = None) -> None:
    """Fill `out` [E, N, K], or [N, K] with one `part`; exact in bf16 and fp32.

    Raises MissingWeights, CorruptWeights: the files changed.
    """
    if part is None:
        for one in range(entry.shape[0]):
            read_mxfp4_into(out[one], entry, one)
        return
    codes, scale = _read(entry, part)
    wide = codes.view(*scale.shape, MX_GROUP).float().mul_(scale.unsqueeze(-1))
    in_turn(out, wide.view(codes.shape), entry.alternate)


def read_mxfp4_codes(entry: Mxfp4, part: int) -> Codes:
    """One matrix code for code, as int8 of 32 a group. Raises MissingWeights, CorruptWeights: the files changed."""
    codes, scale = _read(entry, part)
    q, lines = torch.empty_like(codes), torch.empty_like(scale)
    in_turn(q, codes, entry.alternate)
    in_turn(lines, scale, entry.alternate)
    return Codes(q, lines, None, Form("int8", MX_GROUP))


def _read(entry: Mxfp4, part: int) -> tuple[Tensor, Tensor]:
    """Twice the 4-bit floats [N, K] int8, and half of each group's power of two [N, K / 32] fp32, rows as the file has them."""
    packed = read_part(entry.blocks, part)  # [N, K / 32, 16]
    pairs = torch.tensor([(TWICE[byte & 15], TWICE[byte >> 4]) for byte in range(256)], dtype=torch.int8)
    codes = pairs[packed.int()].view(packed.shape[0], -1)
    exponents = read_part(entry.scales, part).to(torch.int32) - EXPONENT - 1
    return codes, torch.ldexp(torch.ones(exponents.shape), exponents)
