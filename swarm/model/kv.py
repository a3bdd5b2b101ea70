"""How keys or values of one Block lie in pages: as numbers, or as int8 with a scale for each head and position.

n: rows   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from swarm.model.memory import num_bytes

LARGEST = 127
"""int8 codes are symmetric: -127 to 127."""


class Kept(Protocol):
    """Keys or values of all pages of one Block."""

    def write(self, slot: int, x: Tensor) -> None:
        """Put `x` [n, KV, D] at positions `slot` and on, counted over all pages."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Make page `target` what page `source` is."""
        ...

    def side_by_side(self, first: int, pages: int) -> Tensor:
        """Pages `first` and on as numbers [pages x page positions, KV, D]: in place where they are kept so."""
        ...

    def gathered(self, index: Tensor) -> Tensor:
        """Pages `index` [pages] int64 as numbers, copied."""
        ...

    @property
    def num_bytes(self) -> int: ...


@dataclass(frozen=True)
class Numbers:
    """In the dtype that is computed in."""

    data: Tensor  # [pages, page positions, KV, D]

    def write(self, slot: int, x: Tensor) -> None:
        """See `Kept.write`."""
        _flat(self.data)[slot : slot + x.shape[0]] = x

    def copy(self, source: int, target: int) -> None:
        """See `Kept.copy`."""
        self.data[target] = self.data[source]

    def scatter(self, slots: Tensor, x: Tensor) -> None:
        """Put `x` [n, KV, D] at the positions `slots` [n] int64, each anywhere."""
        _flat(self.data).index_copy_(0, slots, x)

    def side_by_side(self, first: int, pages: int) -> Tensor:
        """See `Kept.side_by_side`."""
        return _flat(self.data[first : first + pages])

    def gathered(self, index: Tensor) -> Tensor:
        """See `Kept.gathered`."""
        return _flat(self.data.index_select(0, index))

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.data)


@dataclass(frozen=True)
class Codes8:
    """As int8 times a scale: half of bf16, and what is read is made numbers again at every Step."""

    codes: Tensor  # [pages, page positions, KV, D] int8
    scale: Tensor  # [pages, page positions, KV, 1] in the dtype that is computed in

    def write(self, slot: int, x: Tensor) -> None:
        """See `Kept.write`; the largest of a head's numbers becomes 127 or -127."""
        wide = x.float()
        scale = (wide.abs().amax(-1, keepdim=True) / LARGEST).to(self.scale.dtype)  # [n, KV, 1]
        lines = scale.float().clamp(min=torch.finfo(torch.float32).tiny)
        codes = (wide / lines).round_().clamp_(-LARGEST, LARGEST)
        _flat(self.codes)[slot : slot + x.shape[0]] = codes.to(torch.int8)
        _flat(self.scale)[slot : slot + x.shape[0]] = scale

    def copy(self, source: int, target: int) -> None:
        """See `Kept.copy`."""
        self.codes[target], self.scale[target] = self.codes[source], self.scale[source]

    def side_by_side(self, first: int, pages: int) -> Tensor:
        """See `Kept.side_by_side`; a copy here."""
        return self._numbers(self.codes[first : first + pages], self.scale[first : first + pages])

    def gathered(self, index: Tensor) -> Tensor:
        """See `Kept.gathered`."""
        return self._numbers(self.codes.index_select(0, index), self.scale.index_select(0, index))

    def _numbers(self, codes: Tensor, scale: Tensor) -> Tensor:
        return _flat(codes.to(scale.dtype).mul_(scale))

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.codes, self.scale)


def empty(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, kept_as: str = "") -> Kept:
    """Pages of that shape with nothing in them.

    Args:
        shape: pages, positions of one, KV, D.
        dtype: what is computed in.
        kept_as: one of `swarm.config.KV_DTYPES`.
    """
    if kept_as == "int8":
        codes = torch.empty(shape, dtype=torch.int8, device=device)
        return Codes8(codes, torch.empty((*shape[:-1], 1), dtype=dtype, device=device))
    assert not kept_as, "the Plan was checked"
    return Numbers(torch.empty(shape, dtype=dtype, device=device))


def _flat(pages: Tensor) -> Tensor:
    return pages.view(-1, *pages.shape[2:])
