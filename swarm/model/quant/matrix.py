"""Codes as the matrix that a product meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from swarm.model.quant.filling import Filling
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
    parts = tuple(_one(run, dtype) for run in runs)
    return parts[0] if len(parts) == 1 else Stacked(parts)


def _alike(one: Codes, other: Codes) -> bool:
    return one.form == other.form and (
        one.order is other.order or (one.order is not None and other.order is not None and torch.equal(one.order, other.order))
    )


def _one(run: Sequence[Codes], dtype: torch.dtype) -> Quantized | Ordered:
    order, filling = run[0].order, Filling(sum(len(codes.q) for codes in run), dtype)
    for codes in run:
        filling.add(replace(codes, order=None))
    return filling.done() if order is None else Ordered(filling.done(), order.to(torch.int32))
