"""A matrix in few bits that is filled from above: its codes need not all be there at once, which take twice its room and more.

N: outputs   K: inputs
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from swarm.model.memory import in_large_pages
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.int8_groups import Int8Groups
from swarm.model.quant.planes import KERNEL_ROWS
from swarm.weights.codes import Codes

Plain = Int4Matrix | Int8Groups | Int8Matrix
OUTPUTS: dict[type[Plain], dict[str, int]] = {
    Int4Matrix: {"packed": 0, "scales": 1},
    Int8Groups: {"packed": 1, "scales": 2},
    Int8Matrix: {"q": 0, "scale": 0},
}
"""Each form's tensors, and along which dimension their outputs lie."""
BLOCK_ROWS = 64
"""A multiple of the blocks of every kernel's order."""
PIECE_WEIGHTS = 1 << 18
"""Packed at once: in between they take 4 bytes each, and more."""


@dataclass
class Filling:
    """A matrix [N, K], filled with codes of its form, inputs in their own order, from the first output on.

    Args:
        dtype: of the rows that will meet it: scales and zeros are rounded to that.
    """

    rows: int
    dtype: torch.dtype
    _matrix: Plain | None = None
    _filled: int = 0
    _rest: list[Codes] = field(default_factory=list)
    """What came and is less than a piece yet."""

    def add(self, codes: Codes) -> None:
        """The next outputs."""
        codes = joined([*self._rest, codes])
        self._rest.clear()
        at, last = 0, self._filled + len(codes.q) == self.rows
        piece = BLOCK_ROWS * max(1, PIECE_WEIGHTS // (BLOCK_ROWS * codes.q.shape[1]))
        while at + piece <= len(codes.q) or (last and at < len(codes.q)):
            self._pack(rows_of(codes, slice(at, at + piece)))
            at += piece
        if at < len(codes.q):
            self._rest.append(rows_of(codes, slice(at, None)))

    def done(self) -> Plain:
        """The matrix, whose outputs all came."""
        assert self._matrix is not None and self._filled == self.rows and not self._rest
        return self._matrix

    def _pack(self, codes: Codes) -> None:
        part = plain_of(codes, self.dtype)
        self._matrix = self._matrix or _blank(part, self.rows)
        for name, outputs in OUTPUTS[type(part)].items():
            some: Tensor = getattr(part, name)
            getattr(self._matrix, name).narrow(outputs, self._filled, some.shape[outputs]).copy_(some)
        self._filled += len(codes.q)


def plain_of(codes: Codes, dtype: torch.dtype) -> Plain:
    """All of a matrix's codes, inputs in their own order, as what a product meets."""
    if codes.form.kind == "int4":
        return Int4Matrix.of(codes, dtype)
    return Int8Groups.of(codes, dtype) if codes.form.group else Int8Matrix.of(codes, dtype)


def rows_of(codes: Codes, rows: slice) -> Codes:
    """Some outputs."""
    zero = None if codes.zero is None else codes.zero[rows]
    return replace(codes, q=codes.q[rows], scale=codes.scale[rows], zero=zero)


def joined(run: list[Codes]) -> Codes:
    """Codes of one form and order, one above the other."""
    if len(run) == 1:
        return run[0]
    zero = None
    if any(c.zero is not None for c in run):
        zero = torch.cat([c.zero if c.zero is not None else torch.zeros_like(c.scale) for c in run])
    return replace(run[0], q=torch.cat([c.q for c in run]), scale=torch.cat([c.scale for c in run]), zero=zero)


def _blank(part: Plain, rows: int) -> Plain:
    """A matrix of so many outputs, nothing in it yet, otherwise like that of some of them."""
    if isinstance(part, Int8Matrix):
        return replace(part, q=_high(part.q, 0, rows), scale=_high(part.scale, 0, rows))
    packed, scales = (
        _high(getattr(part, name), at, -(-rows // KERNEL_ROWS) * KERNEL_ROWS) for name, at in OUTPUTS[type(part)].items()
    )
    return replace(part, rows=rows, packed=packed, scales=scales)


def _high(like: Tensor, outputs: int, rows: int) -> Tensor:
    shape = list(like.shape)
    shape[outputs] = rows
    return in_large_pages(like.new_empty(shape))
