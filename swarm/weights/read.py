"""One tensor, read from its file into memory of our own: as floats, or as the codes that it has.

Into freshly allocated memory and not a view of a mapped file: it is aligned, and what is not kept is given back.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from swarm.bits import Form
from swarm.model.memory import scratch
from swarm.weights.codes import Codes
from swarm.weights.entry import AnyEntry
from swarm.weights.fill import fill
from swarm.weights.gguf.entry import GgufEntry
from swarm.weights.gguf.kinds import FLOATS
from swarm.weights.gguf.read import read_gguf_codes, read_gguf_into
from swarm.weights.header import Entry
from swarm.weights.layouts import Mxfp4, Rearranged
from swarm.weights.mxfp4 import read_mxfp4_codes, read_mxfp4_into
from swarm.weights.packed import PackedEntry
from swarm.weights.rearrange import read_rearranged_into
from swarm.weights.torch_dtypes import TORCH
from swarm.weights.unpack import read_packed_codes, read_packed_into


def form_of(entry: AnyEntry) -> Form | None:
    """The form in which a tensor's own codes can be kept; None where it has none (see `AnyEntry.form`)."""
    return entry.form


def floats_of(entry: AnyEntry) -> torch.dtype:
    """The smallest dtype that has all numbers of a tensor: that of its floats, fp32 where it has codes."""
    match entry:
        case Entry():
            return TORCH[entry.dtype]
        case Rearranged():
            return TORCH[entry.of.dtype]
        case GgufEntry() if entry.kind.name in FLOATS:
            return TORCH[entry.kind.name]
        case _:
            return torch.float32


def read_into(out: Tensor, entry: AnyEntry, part: int | None = None) -> None:
    """Fill `out` (contiguous, any float dtype, any device) with one tensor, or its `part` along the first dimension.

    Without a copy where dtype and device are the file's.

    Raises:
        MissingWeights: the file cannot be read any more.
        CorruptWeights: the file ends too early, or its tensor contradicts itself.
    """
    match entry:
        case Entry():
            _read_floats_into(out, entry, part)
        case GgufEntry():
            read_gguf_into(out, entry if part is None else entry.part(part))
        case Rearranged():
            read_rearranged_into(out, entry, part)
        case Mxfp4():
            read_mxfp4_into(out, entry, part)
        case PackedEntry():
            read_packed_into(out, entry)
        case _:
            raise AssertionError(f"no reader for {entry}")


def read_codes(entry: AnyEntry, part: int | None = None) -> Codes | None:
    """A tensor's own codes [N, K], or those of its `part` along the first dimension; None where `form_of` is None.

    Raises MissingWeights, CorruptWeights: see `read_into`.
    """
    match entry:
        case GgufEntry():
            return read_gguf_codes(entry if part is None else entry.part(part))
        case Mxfp4() if part is not None:
            return read_mxfp4_codes(entry, part)
        case PackedEntry():
            return read_packed_codes(entry)
        case _:
            return None


def _read_floats_into(out: Tensor, entry: Entry, part: int | None) -> None:
    shape, dtype = entry.shape if part is None else entry.shape[1:], TORCH[entry.dtype]
    offset = entry.offset + (part or 0) * prod(shape) * dtype.itemsize
    if out.dtype == dtype and out.device.type == "cpu" and out.is_contiguous():
        fill(out, entry.file, offset)
    else:
        read = scratch(shape, dtype)
        fill(read, entry.file, offset)
        out.copy_(read)
