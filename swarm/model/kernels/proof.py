"""What a card's kernels answer beside their twin in plain torch, on small matrices of random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from swarm.model.kernels.bank import Bank, Packed
from swarm.model.kernels.card_int4 import CardInt4
from swarm.model.kernels.port import Kernels, Lanes, Plain

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Of the norm of the difference, beside the norm of the answer: orders of sums and roundings differ, no more."""
EXPERTS, FFN, HIDDEN, GROUP = 3, 80, 192, 64


def differences(kernels: Kernels, device: torch.device, dtype: torch.dtype) -> str:
    """Which answer of `kernels` is another one than the twin's; empty where none is."""
    draw = torch.Generator().manual_seed(0)
    twin = Plain()
    x = torch.randn(5, HIDDEN, generator=draw).to(device, dtype)
    chosen = torch.tensor([[0, 2], [1, 2], [0, 1], [2, 0], [1, 0]], device=device)
    weights = [torch.randn(2 * FFN, HIDDEN, generator=draw).mul_(0.1).to(device, dtype) for _ in range(EXPERTS)]
    packed = [drawn_int4(2 * FFN, HIDDEN, GROUP, dtype, draw, device).packed for _ in range(EXPERTS)]
    for form, parts in {"numbers": [Packed.dense(w) for w in weights], "4 bits": packed}.items():
        for gated in (False, True):
            bank = Bank(tuple(parts))
            if far(kernels.grouped(x, chosen, bank, gated), twin.grouped(x, chosen, bank, gated)) > TOLERANCE[dtype]:
                return f"products of chosen matrices in {form} are wrong"
    part = range(16, 2 * FFN)
    if far(kernels.unpacked(packed[0], part), twin.unpacked(packed[0], part)) > TOLERANCE[dtype]:
        return "4 bits are unpacked wrongly"
    return _attention(kernels, device, dtype, draw)


def _attention(kernels: Kernels, device: torch.device, dtype: torch.dtype, draw: torch.Generator) -> str:
    """A Session that decodes in scattered pages beside one with a chunk behind a history; then one row of each."""
    keys, values = torch.randn(2, 12, 8, 2, 32, generator=draw).to(device, dtype)
    tables = torch.tensor([[7, 3, 9, 0, 5], [1, 2, 4, 8, 11]], dtype=torch.int32, device=device)
    for firsts, lengths, tile_rows in (((33, 11), (1, 9), 4), ((33, 19), (1, 1), 1)):
        lanes = laid(firsts, lengths, tables, keys.shape[1], tile_rows)
        q = torch.randn(sum(lengths), 8, 32, generator=draw).to(device, dtype)
        for window in (0, 7):
            if (
                far(kernels.attend(q, keys, values, lanes, window), Plain().attend(q, keys, values, lanes, window))
                > TOLERANCE[dtype]
            ):
                return "attention over pages is wrong"
    return ""


def laid(firsts: Sequence[int], lengths: Sequence[int], tables: Tensor, page: int, tile_rows: int) -> Lanes:
    """The Lanes of Sessions, each with some rows from a position on."""
    positions: list[int] = []
    slots: list[int] = []
    tiles: list[tuple[int, int, int]] = []
    for session, (first, length, pages) in enumerate(zip(firsts, lengths, tables.tolist(), strict=True)):
        start = len(positions)
        positions += range(first, first + length)
        slots += [pages[p // page] * page + p % page for p in range(first, first + length)]
        tiles += [(start + at, start + min(at + tile_rows, length), session) for at in range(0, length, tile_rows)]
    where = torch.tensor(tiles, dtype=torch.int32, device=tables.device)
    at = torch.tensor([positions, slots], device=tables.device)
    return Lanes(at[0], at[1], where, tables, tile_rows, max(positions) + 1)


def drawn_int4(rows: int, columns: int, group: int, dtype: torch.dtype, draw: torch.Generator, device: torch.device) -> CardInt4:
    """A random matrix of 4 bits."""
    groups = -(-columns // group)
    q = torch.randint(0, 16, (rows, groups * group), dtype=torch.uint8, generator=draw)
    scales = torch.rand(groups, rows, 2, generator=draw).mul_(0.05).to(dtype)
    return CardInt4.of(q.to(device), scales.to(device), columns, Plain())


def far(answer: Tensor, truth: Tensor) -> float:
    """The norm of the difference over that of the truth; infinite where something is no number."""
    if not answer.isfinite().all():
        return float("inf")
    return float((answer.float() - truth.float()).norm() / truth.float().norm())
