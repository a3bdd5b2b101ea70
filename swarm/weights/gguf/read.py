"""One tensor of a GGUF file, read a few rows at a time: as floats, or as its own codes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from swarm.weights.codes import MIDDLE, Codes
from swarm.weights.fill import fill
from swarm.weights.gguf.blocks import DECODERS, Block
from swarm.weights.gguf.entry import GgufEntry
from swarm.weights.gguf.kinds import FLOATS
from swarm.weights.torch_dtypes import TORCH

CHUNK_WEIGHTS = 1 << 19
"""Weights decoded at once: what comes between the file and what is kept stays at a few MB."""


def read_gguf_into(out: Tensor, entry: GgufEntry) -> None:
    """Fill `out`, of the entry's shape and any float dtype and device. Raises MissingWeights, CorruptWeights."""
    flat = out.view(_matrix_shape(entry))
    for rows, blocks in _pieces(entry):
        flat[rows.to(out.device)] = _dense(entry, blocks).view(len(rows), -1).to(out.device, out.dtype)


def read_gguf_codes(entry: GgufEntry) -> Codes | None:
    """A matrix's codes [N, K]; None where its kind has no Form. Raises MissingWeights, CorruptWeights."""
    form = entry.form
    if form is None:
        return None
    shape, groups = entry.shape, (entry.shape[0], entry.shape[1] // form.group)
    q = torch.empty(shape, dtype=torch.uint8 if form.kind == "int4" else torch.int8)
    scale, zero = torch.empty(groups), torch.empty(groups)
    has_zero = False
    for rows, blocks in _pieces(entry):
        codes, scales, zeros = DECODERS[entry.kind.name](blocks)
        q[rows], scale[rows] = codes.view(len(rows), -1), scales.view(len(rows), -1)
        if zeros is not None:
            zero[rows], has_zero = zeros.view(len(rows), -1), True
    return Codes(q, scale, zero if has_zero else None, form)


def _pieces(entry: GgufEntry) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and their bytes: which rows of the tensor they are, int64 [r], and their blocks, uint8 [r * blocks, bytes]."""
    num_rows, columns = _matrix_shape(entry)
    per_row = columns // entry.kind.weights
    row_bytes = per_row * entry.kind.num_bytes
    step = max(1, CHUNK_WEIGHTS // columns)
    for at in range(0, num_rows, step):
        rows = torch.arange(at, min(at + step, num_rows))
        blocks = torch.empty((len(rows) * per_row, entry.kind.num_bytes), dtype=torch.uint8)
        fill(blocks, entry.file, entry.offset + at * row_bytes)
        yield _own_rows(rows, entry.paired_heads, num_rows), blocks


def _matrix_shape(entry: GgufEntry) -> tuple[int, int]:
    """Rows and columns; a bias whose numbers were moved has a row for each."""
    if entry.paired_heads and len(entry.shape) == 1:
        return entry.shape[0], 1
    return prod(entry.shape[:-1]), entry.shape[-1]


def _own_rows(rows: Tensor, heads: int, num_rows: int) -> Tensor:
    """Where rows were before llama.cpp moved them: of each head, first the even ones, then the odd ones."""
    if not heads:
        return rows
    size = num_rows // heads
    head, at = rows // size, rows % size
    return head * size + at % 2 * (size // 2) + at // 2


def _dense(entry: GgufEntry, blocks: Tensor) -> Tensor:
    """The weights of blocks, any shape: in fp32, or in the dtype that they are in."""
    name = entry.kind.name
    if name in FLOATS:
        return blocks.view(TORCH[name])
    if entry.kind.form is not None:
        return _line(DECODERS[name](blocks), MIDDLE[entry.kind.form.kind])
    # Only these kinds need it, and it takes half a second to import.
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return torch.from_numpy(dequantize(blocks.numpy(), GGMLQuantizationType[name]))


def _line(block: Block, middle: int) -> Tensor:
    q, scale, zero = block
    w = (q.view(*scale.shape, -1).float() - middle) * scale[..., None]
    return w if zero is None else w.add_(zero[..., None])
