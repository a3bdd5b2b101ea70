"""Codes as the matrix that a product meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.int8_groups import Int8Groups
from swarm.model.quant.ordered import Ordered, Quantized
from swarm.model.quant.stacked import Stacked
from swarm.weights.codes import Codes


def matrix_of(codes: Sequence[Codes], dtype: torch.dtype) -> Quantized | Ordered | Stacked:
    """Codes of one width, one above the other; neighbours of one form and order are one matrix.

    Args:
        dtype: of the rows that will meet it.
    """
    runs: list[list[Codes]] = []
    for each in codes:
        if runs and _alike(runs[-1][0], each):
            runs[-1].append(each)
        else:
            runs.append([each])
    parts = tuple(_one(_joined(run), dtype) for run in runs)
    return parts[0] if len(parts) == 1 else Stacked(parts)


def _alike(one: Codes, other: Codes) -> bool:
    return one.form == other.form and (
        one.order is other.order or (one.order is not None and other.order is not None and torch.equal(one.order, other.order))
    )


def _joined(run: Sequence[Codes]) -> Codes:
    if len(run) == 1:
        return run[0]
    zero = None if all(c.zero is None for c in run) else torch.cat([_zero(c) for c in run])
    return replace(run[0], q=torch.cat([c.q for c in run]), scale=torch.cat([c.scale for c in run]), zero=zero)


def _zero(codes: Codes) -> Tensor:
    return codes.zero if codes.zero is not None else torch.zeros_like(codes.scale)


def _one(codes: Codes, dtype: torch.dtype) -> Quantized | Ordered:
    if codes.order is not None:
        return Ordered(_plain(replace(codes, order=None), dtype), codes.order.to(torch.int32))
    return _plain(codes, dtype)


def _plain(codes: Codes, dtype: torch.dtype) -> Quantized:
    if codes.form.kind == "int4":
        return Int4Matrix.of(codes, dtype)
    return Int8Groups.of(codes, dtype) if codes.form.group else Int8Matrix.of(codes, dtype)
