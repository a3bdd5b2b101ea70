"""One matrix that GPTQ or AWQ quantized: as floats, or as its own codes.

N: outputs   K: inputs   G: groups of inputs   (see `swarm.weights.packed`)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from swarm.errors import CorruptWeights
from swarm.weights.codes import Codes
from swarm.weights.fill import fill
from swarm.weights.header import Entry
from swarm.weights.packed import GPTQ, PackedEntry
from swarm.weights.torch_dtypes import TORCH

AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]
"""In which of a word's eight codes each of eight neighbours is."""
CHUNK_WEIGHTS = 1 << 19


def read_packed_into(out: Tensor, entry: PackedEntry) -> None:
    """Fill `out` [N, K], any float dtype and device. Raises MissingWeights, CorruptWeights."""
    scale, zero, order = _lines(entry)
    for rows, q in _pieces(entry, order):
        codes = Codes(q, scale[rows], None if zero is None else zero[rows], entry.packing.form, order)
        out[rows].copy_(codes.dense())


def read_packed_codes(entry: PackedEntry) -> Codes:
    """Its codes. Raises MissingWeights, CorruptWeights."""
    scale, zero, order = _lines(entry)
    form = entry.packing.form
    q = torch.empty(entry.shape, dtype=torch.uint8 if form.kind == "int4" else torch.int8)
    for rows, piece in _pieces(entry, order):
        q[rows] = piece
    return Codes(q, scale, zero, form, order)


def _lines(entry: PackedEntry) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Scales and zeros [N, G'] of the Form's groups, and the order of inputs."""
    packing, inputs = entry.packing, entry.shape[1]
    scales = _read(entry.scales).float()  # [G, N]
    z = _spread(_read(entry.qzeros), packing.bits, awq=packing.method != GPTQ)
    z = z.view(len(scales), -1).add_(packing.less).bitwise_and_(2**packing.bits - 1)
    zeros = (2 ** (packing.bits - 1) - z.float()) * scales
    groups, wider = -(-inputs // packing.form.group), max(1, (packing.group or inputs) // packing.form.group)

    def of_form(x: Tensor) -> Tensor:
        x = x.T if packing.group else x.T.expand(-1, groups)
        return (x.repeat_interleave(wider, 1) if packing.group and wider > 1 else x)[:, :groups].contiguous()

    return of_form(scales), of_form(zeros) if zeros.any() else None, _order(entry)


def _order(entry: PackedEntry) -> Tensor | None:
    """The inputs group by group; None where they lie so. Raises CorruptWeights: the groups are not of one size."""
    if entry.g_idx is None:
        return None
    group_of = _read(entry.g_idx)
    want = torch.arange(len(group_of), dtype=torch.int32) // (entry.packing.group or len(group_of))
    if torch.equal(group_of, want):
        return None
    order = group_of.argsort(stable=True)
    if not torch.equal(group_of[order], want):
        raise CorruptWeights(f"{entry.path}: {entry.g_idx.name} has groups of unequal size: fetch the model again")
    return order


def _pieces(entry: PackedEntry, order: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the matrix, a few at a time, as the Form has codes: [n, K], group by group."""
    outputs, inputs = entry.shape
    packing, words = entry.packing, _read(entry.qweight)
    gptq = packing.method == GPTQ
    at_once = 1 if gptq else 32 // packing.bits  # outputs of one column of words
    step = max(1, CHUNK_WEIGHTS // (inputs * at_once))
    for at in range(0, words.shape[1], step):
        q = _spread(words[:, at : at + step].contiguous(), packing.bits, awq=not gptq)
        q = q.transpose(0, 1).reshape(-1, inputs) if gptq else q.view(inputs, -1).T
        rows = slice(at * at_once, min(outputs, (at + step) * at_once))
        q = q.contiguous() if order is None else q[:, order]
        yield rows, q if packing.form.kind == "int4" else q.sub_(2 ** (packing.bits - 1)).view(torch.int8)


def _spread(words: Tensor, bits: int, awq: bool) -> Tensor:
    """The codes of words [r, c] of 32 bits, as uint8 [r, c, codes of a word]."""
    raw = words.view(torch.uint8).view(*words.shape, 4)
    if bits == 8:
        return raw.clone()
    q = torch.stack([raw & 15, raw >> 4], -1).flatten(-2)
    return q[..., AWQ_ORDER] if awq else q


def _read(entry: Entry) -> Tensor:
    tensor = torch.empty(entry.shape, dtype=TORCH[entry.dtype])
    fill(tensor, entry.file, entry.offset)
    return tensor
