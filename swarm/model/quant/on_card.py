"""What was packed for a CPU's kernels, as a card's read it: code for code, and put there when it is done.

N: outputs   K: inputs   G: groups of a row   S: shares of the groups, see `swarm.model.quant.planes`
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.kernels.bank import Packed
from swarm.model.kernels.card_matrix import CardMatrix
from swarm.model.quant import int4_layout

TOGETHER = 64
"""Weights that a card reads at once where a whole row shares a scale."""


def int4(packed: Tensor, scales: Tensor, rows: int, columns: int, device: torch.device) -> CardMatrix:
    """From a plane [N, K / 2] and its scales and zeros [G, N, 2]."""
    q = _codes(packed)[:rows]
    return CardMatrix(Packed.int4(q, scales[:, :rows], columns)).to(device)


def int8(q: Tensor, scale: Tensor, columns: int, device: torch.device) -> CardMatrix:
    """From codes [N, K] and a scale a row [N]."""
    wide = F.pad(q, (0, -q.shape[1] % TOGETHER))
    pairs = torch.stack((scale, torch.zeros_like(scale)), -1).unsqueeze(0)  # [1, N, 2]
    return CardMatrix(Packed.int8(wide, pairs, columns, TOGETHER)).to(device)


def int8_groups(packed: Tensor, scales: Tensor, sizes: tuple[int, int, int], device: torch.device) -> CardMatrix:
    """From two planes [2, N, K / 2] that share their lines [S, G / S, N, 2].

    Args:
        sizes: outputs, inputs, weights of a group.
    """
    rows, columns, group = sizes
    high, low = (_codes(plane)[:rows].to(torch.int16) for plane in packed)
    q = (16 * high + low - 128).to(torch.int8)
    lines = scales.transpose(0, 1).flatten(0, 1)[:, :rows].float()  # [G, N, 2]
    zero = 17 * lines[..., 1] - 8 * lines[..., 0]  # of both planes together
    pairs = torch.stack((lines[..., 0], zero), -1).to(scales.dtype)
    return CardMatrix(Packed.int8(q, pairs, columns, group)).to(device)


def _codes(packed: Tensor) -> Tensor:
    """The codes of 0 to 15 of a plane [N, K / 2], uint8 [N, K]."""
    out = torch.empty(packed.shape[0], 2 * packed.shape[1], dtype=torch.uint8)
    for tile in int4_layout.tiles(packed.shape[0], 2 * packed.shape[1]):
        halves = int4_layout.blocks(packed, tile)  # [b, K, h / 2]
        codes = torch.empty(*halves.shape[:2], tile.height)
        int4_layout.spread(halves, torch.empty(halves.shape, dtype=halves.dtype), codes)
        out[tile.rows] = codes.transpose(1, 2).flatten(0, 1).to(torch.uint8)
    return out
