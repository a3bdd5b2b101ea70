"""Floats whose file has them in another order, put into ours as they are read."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from swarm.weights.fill import fill
from swarm.weights.header import ITEM_BYTES, Entry
from swarm.weights.layouts import Rearranged
from swarm.weights.torch_dtypes import TORCH


def read_rearranged_into(out: Tensor, entry: Rearranged, part: int | None = None) -> None:
    """Fill `out`; one part at a time is in memory twice. Raises MissingWeights, CorruptWeights: the file changed."""
    if part is None and len(entry.shape) > 2:
        for one in range(entry.shape[0]):
            read_rearranged_into(out[one], entry, one)
        return
    found = read_part(entry.of, part)
    in_turn(out, found.t() if entry.turned else found, entry.alternate)


def read_part(entry: Entry, part: int | None = None) -> Tensor:
    """One tensor as its file has it, or its `part` along the first dimension."""
    shape = entry.shape if part is None else entry.shape[1:]
    found = torch.empty(shape, dtype=TORCH[entry.dtype])
    fill(found, entry.file, entry.offset + (part or 0) * prod(shape) * ITEM_BYTES[entry.dtype])
    return found


def in_turn(out: Tensor, rows: Tensor, alternate: bool) -> None:
    """`rows` into `out`; where they are two matrices' in turn, the even ones first and then the odd ones."""
    if not alternate:
        out.copy_(rows)
        return
    middle = rows.shape[0] // 2
    out[:middle].copy_(rows[0::2])
    out[middle:].copy_(rows[1::2])
