"""Matrices of one shape and form that lie anywhere on a card, as a table of where each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """One matrix [N, K] as it lies on a card.

    Args:
        codes: numbers [N, K] where `group` is 0; else uint8 [groups, N, group / 2]: byte j of a group has weight j below and
            weight j + group / 2 above.
        scales: [groups, N, 2]: scale and zero, in the dtype that is computed in; the codes themselves where `group` is 0.
    """

    rows: int
    columns: int
    group: int
    codes: Tensor
    scales: Tensor

    @classmethod
    def dense(cls, w: Tensor) -> Packed:
        return cls(w.shape[0], w.shape[1], 0, w, w)

    @property
    def numbers(self) -> torch.dtype:
        """What is computed in."""
        return self.scales.dtype

    def outputs(self, part: range) -> Packed:
        """Some of its outputs, where they lie."""
        at = slice(part.start, part.stop)
        codes, scales = (self.codes[at], self.scales[at]) if not self.group else (self.codes[:, at], self.scales[:, at])
        return Packed(len(part), self.columns, self.group, codes, scales)

    def weights(self) -> Tensor:
        """The matrix [N, K] in the dtype of its scales, in plain torch; each weight is rounded once."""
        if not self.group:
            return self.codes
        codes = torch.cat((self.codes & 15, self.codes >> 4), -1).float() - 8  # [groups, N, g]
        wide = torch.addcmul(self.scales[..., 1:].float(), codes, self.scales[..., :1].float()).to(self.numbers)
        return wide.transpose(0, 1).flatten(1)[:, : self.columns]


@dataclass(frozen=True)
class Bank:
    """Matrices by their number; None: not here. All have one shape and one form."""

    parts: tuple[Packed | None, ...]

    @classmethod
    def of(cls, parts: Sequence[Packed | None]) -> Bank | None:
        """None where they differ in shape or form, or none is here."""
        kinds = {(p.rows, p.columns, p.group, p.numbers, p.codes.dtype, p.codes.is_contiguous()) for p in parts if p}
        return cls(tuple(parts)) if len(kinds) == 1 and all(kind[-1] for kind in kinds) else None

    @cached_property
    def like(self) -> Packed:
        """Any of them."""
        return next(p for p in self.parts if p)

    @cached_property
    def table(self) -> Tensor:
        """[E] int64: addresses of the codes, 0 where a matrix is not here."""
        return self._addresses([p.codes.data_ptr() if p else 0 for p in self.parts])

    @cached_property
    def scales(self) -> Tensor:
        """[E] int64: addresses of the scales."""
        return self._addresses([p.scales.data_ptr() if p else 0 for p in self.parts])

    def _addresses(self, where: list[int]) -> Tensor:
        return torch.tensor(where, dtype=torch.int64, device=self.like.codes.device)
