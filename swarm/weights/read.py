"""One tensor, read from its file into memory of our own: as floats, or as the codes that it has.

Into freshly allocated memory and not a view of a mapped file: it is aligned, and what is not kept is given back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swarm.bits import Form
from swarm.weights.codes import Codes
from swarm.weights.entry import AnyEntry
from swarm.weights.header import Entry

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read(entry: Entry, part: int | None = None) -> Tensor:
    """One tensor, or its `part` along the first dimension, in the file's dtype, on the CPU.

    Raises:
        MissingWeights: the file cannot be read any more.
        CorruptWeights: the file ends too early.
    """
    shape = entry.shape if part is None else entry.shape[1:]
    tensor = torch.empty(shape, dtype=DTYPES[entry.dtype])
    _fill(tensor, entry, part)
    return tensor


def form_of(entry: AnyEntry) -> Form | None:
    """The form in which a tensor's own codes can be kept; None where it has none (see `AnyEntry.form`)."""
    return entry.form


def read_codes(entry: AnyEntry, part: int | None = None) -> Codes | None:
    """A tensor's own codes [N, K], or those of its `part` along the first dimension; None where `form_of` is None.

    Raises MissingWeights, CorruptWeights: see `read`.
    """
    return None


def read_into(out: Tensor, entry: AnyEntry, part: int | None = None) -> None:
    """Like `read`, converted to the dtype and device of `out`, which is contiguous; without a copy where they are the file's."""
    assert isinstance(entry, Entry)
    if out.dtype == DTYPES[entry.dtype] and out.device.type == "cpu" and out.is_contiguous():
        _fill(out, entry, part)
    else:
        out.copy_(read(entry, part))


def _fill(out: Tensor, entry: Entry, part: int | None) -> None:
    offset = entry.offset + (part or 0) * out.numel() * out.element_size()
    entry.file.read_into(offset, out.view(-1).view(torch.uint8).numpy().data)
