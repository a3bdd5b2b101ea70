"""Matrices of 4-bit planes in the order of torch's CPU kernel, with a line for each group of weights along the input dimension.

A plane is `(c - 8) * scale + zero`, c in 0..15. A matrix is one plane, or 16 times a high one and a low one that share their lines:
`(16 * high + low) * scale + 17 * (zero - 8 * scale)`, which are codes of 8 bits.

n: rows   N: outputs, padded   K: inputs, padded   G: groups of a row   b: blocks of a tile   h: rows of a block
S: shares of the groups, each with every S-th (a kernel that knows no groups so small is given one share at a time)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.memory import evened
from swarm.model.native.compiled import compiled
from swarm.model.quant import int4_layout
from swarm.model.quant.int4_layout import Tile
from swarm.weights.spread_out import spread_out

KERNEL_ROWS = 16
"""What the kernel wants the outputs to be a multiple of."""
KERNEL_GROUP = 32
"""The smallest group that the kernel knows."""
MIDDLE = 8
"""The code whose weight is the zero."""
RADIX = 16
SPAN_WEIGHTS = 1 << 17
"""Weights that a thread unpacks at once: in fp32 they stay in a core's cache."""


GAP = 32
"""Weights between an unpacked tile's rows: rows of 4096 would all lie in the same few lines of a cache."""


def has_kernel(x: Tensor, few_rows: int) -> bool:
    """Whether these rows are to meet the packed codes: a few on a CPU, of 16 bits a number."""
    return x.shape[0] <= few_rows and x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)


def padded(q: Tensor, group: int) -> Tensor:
    """Codes of 0 to 15, in whole groups of what the kernel knows and as many outputs as it wants, packed: uint8 [N, K / 2]."""
    rows, columns = q.shape
    return int4_layout.pack(F.pad(q, (0, -columns % max(group, KERNEL_GROUP), 0, -rows % KERNEL_ROWS), value=MIDDLE))


def lines(scale: Tensor, zero: Tensor, packed: Tensor, group: int, dtype: torch.dtype) -> Tensor:
    """Scales and zeros, [rows, groups] each, for what `padded` made: [S, G / S, N, 2]."""
    shares = max(1, KERNEL_GROUP // group)
    more, wider = packed.shape[0] - scale.shape[0], 2 * packed.shape[1] // group - scale.shape[1]
    pairs: Tensor = F.pad(torch.stack((scale, zero), -1), (0, 0, 0, wider, 0, more))  # [N, G, 2]
    return pairs.to(dtype).view(len(pairs), -1, shares, 2).permute(2, 1, 0, 3).contiguous()


def widened(x: Tensor, packed: Tensor) -> Tensor:
    """`x` [n, inputs] with as many zeros as a packed matrix has inputs more: [n, K], contiguous."""
    wider = 2 * packed.shape[1] - x.shape[1]
    if not wider:
        return x.contiguous()
    wide: Tensor = F.pad(x, (0, wider))
    return wide


def few(x: Tensor, packed: Tensor, group: int, scales: Tensor) -> Tensor:
    """`x` [n, K], contiguous, times one plane transposed, by the kernel: [n, N].

    Args:
        packed: uint8 [N, K / 2], N a multiple of 16.
        group: 32, 64 or 128; K is a multiple of it.
        scales: [G, N, 2] in the dtype of `x`.
    """
    assert packed.shape[0] % KERNEL_ROWS == 0 and group >= KERNEL_GROUP and x.shape[1] == 2 * packed.shape[1]
    assert scales.shape == (x.shape[1] // group, packed.shape[0], 2) and scales.dtype is x.dtype
    out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, scales)
    return out


def many(x: Tensor, planes: Sequence[Tensor], scales: Tensor) -> Tensor:
    """`x` [n, K] times the transpose of a matrix that is unpacked a tile at a time: [n, N], outputs side by side in memory.

    Args:
        planes: uint8 [N, K / 2] each, the high one first.
        scales: [S, G / S, N, 2]: scale and zero of each group.
    """
    num_rows, x = x.shape[0], evened(x)
    out = x.new_empty(planes[0].shape[0], x.shape[0])  # [N, n]: the weight is the left factor, see `swarm.model.product`
    tiles, inference = int4_layout.tiles(*shape_of(planes[0])), torch.is_inference_mode_enabled()

    def multiply(part: slice) -> None:
        with torch.inference_mode(inference):  # a mode is a thread's own
            room = Room.of(planes[0], scales, x.dtype)
            for tile in tiles[part]:
                torch.mm(room.unpack(planes, scales, tile), x.t(), out=out[tile.rows])

    threads = torch.get_num_threads()
    if threads == 1 or x.device.type != "cpu" or len(tiles) < 2 * threads:
        multiply(slice(None))
    else:
        spread_out(multiply, len(tiles), math.ceil(len(tiles) / threads))
    return out.t()[:num_rows]


def dense(planes: Sequence[Tensor], scales: Tensor) -> Tensor:
    """The matrix [N, K], in the dtype of its scales."""
    out = scales.new_empty(shape_of(planes[0]))
    room = Room.of(planes[0], scales, scales.dtype)
    for tile in int4_layout.tiles(*out.shape):
        out[tile.rows] = room.unpack(planes, scales, tile)
    return out


def shape_of(plane: Tensor) -> tuple[int, int]:
    """Outputs and inputs, padded, of a packed plane [N, K / 2]."""
    return plane.shape[0], 2 * plane.shape[1]


@dataclass(frozen=True)
class Room:
    """Memory that tiles are unpacked in, taken once a product.

    Args:
        groups: that many at once: what they are in fp32 stays in a core's cache, since it is passed over five times.
        tile: a tile's weights, what is multiplied with.
    """

    groups: int
    spare: Tensor
    codes: Tensor
    high: Tensor
    tile: Tensor

    @classmethod
    def of(cls, plane: Tensor, scales: Tensor, dtype: torch.dtype) -> Room:
        """For a matrix with planes and scales like these."""
        groups = scales.shape[0] * scales.shape[1]
        columns = shape_of(plane)[1]
        rows = max(tile.blocks * tile.height for tile in int4_layout.tiles(*shape_of(plane)))
        at_once = min(groups, max(1, SPAN_WEIGHTS * torch.get_num_threads() * groups // (rows * columns)))
        weights = rows * columns // groups * at_once
        codes, high = torch.empty(2, weights, device=plane.device)
        return cls(
            at_once, plane.new_empty(weights // 2), codes, high, codes.new_empty(rows, columns + GAP, dtype=dtype)[:, :columns]
        )

    def unpack(self, planes: Sequence[Tensor], scales: Tensor, tile: Tile) -> Tensor:
        """Some outputs of the matrix, [m, K], computed in fp32 and rounded once; true until the next call."""
        halves = [int4_layout.blocks(plane, tile) for plane in planes]  # [b, K, h / 2] each
        quick = compiled()
        if quick and quick.takes(tile.height, self.tile) and int4_layout.straight(tile.height):
            at_once: Tensor = self.tile[: tile.blocks * tile.height]
            quick.grouped(halves, scales[:, :, tile.rows], at_once)
            return at_once
        return self._step_by_step(halves, scales, tile)

    def _step_by_step(self, halves: Sequence[Tensor], scales: Tensor, tile: Tile) -> Tensor:
        lines = scales[:, :, tile.rows].transpose(0, 1).flatten(0, 1).float()  # [G, m, 2]
        scale, zero = lines.unflatten(1, (tile.blocks, tile.height)).permute(3, 1, 0, 2).unsqueeze(3).contiguous()  # [b, G, 1, h]
        origin = zero.sub_(scale, alpha=MIDDLE).mul_((RADIX ** len(halves) - 1) // (RADIX - 1))
        group = halves[0].shape[1] // len(lines)
        out: Tensor = self.tile[: tile.blocks * tile.height].unflatten(0, (tile.blocks, tile.height))
        for at in range(0, len(lines), self.groups):
            groups, inputs = slice(at, at + self.groups), slice(at * group, (at + self.groups) * group)
            codes = self._codes([h[:, inputs] for h in halves], tile)  # [b, k, h]
            grouped = codes.unflatten(1, (-1, group))
            torch.addcmul(origin[:, groups], grouped, scale[:, groups], out=grouped)
            out[:, :, inputs].copy_(codes.transpose(1, 2))
        return out.flatten(0, 1)

    def _codes(self, halves: Sequence[Tensor], tile: Tile) -> Tensor:
        first, *second = halves
        spare = _first(self.spare, *first.shape)
        codes = _first(self.codes, *first.shape[:2], tile.height)
        int4_layout.spread(first, spare, codes)
        for half in second:
            high = _first(self.high, *codes.shape).copy_(codes)
            int4_layout.spread(half, spare, codes)
            codes.add_(high, alpha=RADIX)
        return codes


def _first(memory: Tensor, *shape: int) -> Tensor:
    """As much of some memory as that shape takes."""
    return memory[: math.prod(shape)].view(shape)
