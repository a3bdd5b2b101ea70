"""The blocks of GGUF's kinds, as integer codes and the lines through them.

Source: the `dequantize_row_*` functions of ggml-quants.c, whose names (d, dmin, ql, qh) the code below has.

n: blocks   w: weights of a block   G: groups of a block
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Block = tuple[Tensor, Tensor, Tensor | None]
"""Codes [n, w] (uint8 of 0 to 15, or int8), scales [n, G] and zeros [n, G] in fp32: see `swarm.weights.codes.Codes`."""


def q4_0(b: Tensor) -> Block:
    return _nibbles(b[:, 2:]), _half(b, 0), None


def q4_1(b: Tensor) -> Block:
    d, m = _half(b, 0), _half(b, 2)
    return _nibbles(b[:, 4:]), d, m + 8 * d


def q5_0(b: Tensor) -> Block:
    return (_nibbles(b[:, 6:]) | _fifth(b[:, 2:6])).view(torch.int8) - 16, _half(b, 0), None


def q5_1(b: Tensor) -> Block:
    return (_nibbles(b[:, 8:]) | _fifth(b[:, 4:8])).view(torch.int8), _half(b, 0), _half(b, 2)


def q8_0(b: Tensor) -> Block:
    return b[:, 2:].contiguous().view(torch.int8), _half(b, 0), None


def q4_k(b: Tensor) -> Block:
    scale, low = _scales(b)
    return _nibbles(b[:, 16:].reshape(-1, 4, 32)).view(-1, 256), scale, 8 * scale - low


def q5_k(b: Tensor) -> Block:
    scale, low = _scales(b)
    qh = b[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8).view(8, 1) & 1  # [n, 8, 32]
    q = _nibbles(b[:, 48:].reshape(-1, 4, 32)).view(-1, 256) | qh.view(-1, 256) << 4
    return q.view(torch.int8), scale, -low


def q6_k(b: Tensor) -> Block:
    ql = b[:, :128].reshape(-1, 2, 1, 64)
    qh = b[:, 128:192].reshape(-1, 2, 1, 32)
    low = torch.cat([ql & 15, ql >> 4], 2).view(-1, 2, 4, 32)
    high = qh >> torch.arange(0, 8, 2, dtype=torch.uint8).view(4, 1) & 3  # [n, 2, 4, 32]
    q = (low | high << 4).view(torch.int8) - 32
    return q.view(-1, 256), _half(b, 208) * b[:, 192:208].view(torch.int8), None


DECODERS: dict[str, Callable[[Tensor], Block]] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k,
}  # fmt: skip
"""By kind: blocks as bytes [n, bytes of one]."""


def _half(b: Tensor, at: int) -> Tensor:
    """The fp16 number at byte `at` of each block. [n, 1]"""
    return b[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(qs: Tensor) -> Tensor:
    """The lower halves of all bytes, then the upper ones."""
    return torch.cat([qs & 15, qs >> 4], -1)


def _fifth(qh: Tensor) -> Tensor:
    """A bit a weight, at its place above the four of `_nibbles`. [n, 4] -> [n, 32]"""
    return (qh[:, :, None] >> torch.arange(8, dtype=torch.uint8) & 1).view(-1, 32) << 4


def _scales(b: Tensor) -> tuple[Tensor, Tensor]:
    """d times the 6-bit scales, and dmin times the 6-bit mins, of a block's 8 groups."""
    s = b[:, 4:16]
    first, second, both = s[:, :4], s[:, 4:8], s[:, 8:]
    scale = torch.cat([first & 63, both & 15 | first >> 6 << 4], -1)
    low = torch.cat([second & 63, both >> 4 | second >> 6 << 4], -1)
    return _half(b, 0) * scale, _half(b, 2) * low
