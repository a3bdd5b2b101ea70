"""What a card computes with beside torch's own products: one port, and its twin in plain torch.

R: rows   K: inputs   N: outputs   S: matrices a row chose   NH: heads   KV: key-value heads   D: head_dim   T: tiles
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.attend import attend
from swarm.model.kernels.bank import Bank, Packed
from swarm.model.kernels.lanes import Lanes

FEW_ROWS = 32
"""Up to so many rows of a micro-batch the rows meet the packed matrices that they chose; more meet unpacked ones. A constant of
the kind of device. Reasoned, not measured: no GPU has run this yet."""


TWIN_TILE = 1024
"""Outputs that the twin unpacks at once."""


class Kernels(Protocol):
    """A row's bits depend on the row and the matrix alone, not on other rows (promise 2)."""

    def grouped(self, x: Tensor, chosen: Tensor, bank: Bank, gated: bool = False, by_slot: bool = False) -> Tensor:
        """Rows times the matrices that they chose, transposed: [R S, N], rows of a row together; its numbers are the bank's.

        Args:
            x: [R, K], contiguous; [R S, K] where `by_slot`: each choice has a row of its own.
            chosen: [R, S] int64; what names a matrix that is not in the bank leaves its rows undefined.
            gated: SiLU of the first half of the outputs times the second half: [R S, N / 2].
        """
        ...

    def unpacked(self, matrix: Packed, part: range) -> Tensor:
        """Some outputs of a matrix in numbers, each rounded once: [len(part), K]."""
        ...

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, lanes: Lanes, window: int = 0, sinks: Tensor | None = None) -> Tensor:
        """Attention of queries [R, NH, D] over what their Sessions have in the pages up to their own position: [R, NH, D].

        Args:
            q: heads of a row lie together.
            keys, values: [pages, page positions, KV, D].
            window, sinks: see `swarm.model.attend`.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """The twin in plain torch, on any device: it asks the card what was chosen, and waits for the answer."""

    def grouped(self, x: Tensor, chosen: Tensor, bank: Bank, gated: bool = False, by_slot: bool = False) -> Tensor:
        """See `Kernels.grouped`."""
        rows, slots = chosen.shape
        width = bank.like.rows // 2 if gated else bank.like.rows
        out = torch.zeros(rows * slots, width, dtype=x.dtype, device=x.device)
        flat = chosen.flatten()
        for number in sorted(set(flat.tolist())):
            part = bank.parts[number]
            if part is None:
                continue
            at = (flat == number).nonzero()[:, 0]
            y = self._product(x[at if by_slot else at // slots], part)
            if gated:
                gate, up = y.chunk(2, -1)
                y = F.silu(gate) * up
            out[at] = y
        return out

    def unpacked(self, matrix: Packed, part: range) -> Tensor:
        """See `Kernels.unpacked`."""
        return matrix.outputs(part).weights()

    def _product(self, x: Tensor, matrix: Packed) -> Tensor:
        """`x` [n, K] to [n, N], some outputs at a time: an expert of Mixtral's takes a gibibyte while all of it is unpacked."""
        ends = range(0, matrix.rows, TWIN_TILE)
        parts = [F.linear(x, self.unpacked(matrix, range(at, min(at + TWIN_TILE, matrix.rows)))) for at in ends]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, lanes: Lanes, window: int = 0, sinks: Tensor | None = None) -> Tensor:
        """See `Kernels.attend`."""
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        for first, end, session in lanes.tiles.tolist():
            position = int(lanes.positions[first])
            begin = max(0, position - window + 1) if window else 0
            pages = lanes.tables[session, : -(-(position + end - first) // keys.shape[1])].long()
            k, v = (x[pages].flatten(0, 1)[begin : position + end - first] for x in (keys, values))
            out[first:end] = attend(q[first:end], k, v, position - begin, window, sinks)
        return out
