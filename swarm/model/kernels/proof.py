"""What a card's kernels answer beside their twin in plain torch, on small matrices of random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from swarm.model.kernels.bank import Bank, Packed
from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.port import Kernels, Plain

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Of the norm of the difference, beside the norm of the answer: orders of sums and roundings differ; less than tf32 errs."""
EXPERTS, FFN, HIDDEN, GROUP = 3, 40, 96, 64


def differences(kernels: Kernels, device: torch.device, dtype: torch.dtype) -> str:
    """Which answer of `kernels` is another one than the twin's; empty where none is."""
    draw = torch.Generator().manual_seed(0)
    twin = Plain()
    x = torch.randn(5, HIDDEN, generator=draw).to(device, dtype)
    chosen = torch.tensor([[0, 2], [1, 2], [0, 1], [2, 0], [1, 0]], device=device)
    for name, parts in drawn(2 * FFN, HIDDEN, dtype, device, draw).items():
        for gated in (False, True):
            bank = Bank(tuple(parts))
            if far(kernels.grouped(x, chosen, bank, gated), twin.grouped(x, chosen, bank, gated)) > TOLERANCE[dtype]:
                return f"products of chosen matrices in {name} are wrong"
        part = range(16, 2 * FFN)
        if parts[0].bits and far(kernels.unpacked(parts[0], part), twin.unpacked(parts[0], part)) > TOLERANCE[dtype]:
            return f"{name} are unpacked wrongly"
    return _attention(kernels, device, dtype, draw)


def _attention(kernels: Kernels, device: torch.device, dtype: torch.dtype, draw: torch.Generator) -> str:
    """A Session that decodes in scattered pages beside one with a chunk behind a history; then one row of each."""
    keys, values = torch.randn(2, 12, 8, 2, 32, generator=draw).to(device, dtype)
    pages = [[7, 3, 9, 0, 5], [1, 2, 4]]
    for spans in (((33, 34), (11, 20)), ((33, 34), (19, 20))):
        positions = torch.tensor([p for first, end in spans for p in range(first, end)], device=device)
        lanes = Lanes.of(spans, pages, keys.shape[1], 4, positions)
        q = torch.randn(len(positions), 8, 32, generator=draw).to(device, dtype)
        for window in (0, 7):
            answer, truth = (which.attend(q, keys, values, lanes, window) for which in (kernels, Plain()))
            if far(answer, truth) > TOLERANCE[dtype]:
                return "attention over pages is wrong"
    return ""


def drawn(rows: int, columns: int, dtype: torch.dtype, device: torch.device, draw: torch.Generator) -> dict[str, list[Packed]]:
    """Random matrices [rows, columns] of each form, `EXPERTS` of each."""
    wide = -(-columns // GROUP) * GROUP

    def scales(groups: int, size: float = 0.05) -> Tensor:
        return torch.rand(groups, rows, 2, generator=draw).mul_(size).to(device, dtype)

    def codes(least: int, end: int, kind: torch.dtype) -> Tensor:
        return torch.randint(least, end, (rows, wide), generator=draw).to(device, kind)

    return {
        "numbers": [Packed.dense(torch.randn(rows, columns, generator=draw).mul_(0.1).to(device, dtype)) for _ in range(EXPERTS)],
        "4 bits": [Packed.int4(codes(0, 16, torch.uint8), scales(wide // GROUP), columns) for _ in range(EXPERTS)],
        "8 bits": [Packed.int8(codes(-128, 128, torch.int8), scales(1, 0.003), columns, GROUP) for _ in range(EXPERTS)],
        "8 bits in groups": [
            Packed.int8(codes(-128, 128, torch.int8), scales(wide // 16, 0.003), columns, 16) for _ in range(EXPERTS)
        ],
    }


def far(answer: Tensor, truth: Tensor) -> float:
    """The norm of the difference over that of the truth; infinite where something is no number."""
    if not answer.isfinite().all():
        return float("inf")
    return float((answer.float() - truth.float()).norm() / truth.float().norm())
