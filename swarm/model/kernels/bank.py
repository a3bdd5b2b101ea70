"""Matrices of one shape and form that lie anywhere on a card, as a table of where each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """One matrix [N, K] as it lies on a card.

    Args:
        bits: 4: codes are uint8 [groups, N, g / 2], byte j of a group with weight j below and weight j + g / 2 above.
            8: they are int8 [groups, N, g]. 0: they are numbers [N, K].
        group: weights that share a scale, or that are read together where a whole row does; 0 where `bits` is.
        scales: [groups, N, 2] or [1, N, 2]: scale and zero, in the dtype that is computed in; numbers again where `bits` is 0.
    """

    rows: int
    columns: int
    bits: int
    group: int
    codes: Tensor
    scales: Tensor

    @classmethod
    def dense(cls, w: Tensor) -> Packed:
        return cls(w.shape[0], w.shape[1], 0, 0, w, w)

    @classmethod
    def int4(cls, q: Tensor, scales: Tensor, columns: int) -> Packed:
        """From codes 0 to 15, uint8 [N, K padded], and scales and zeros [groups, N, 2]: `w = (q - 8) * scale + zero`."""
        groups, rows, _ = scales.shape
        halves = q.view(rows, groups, 2, -1)  # [N, G, 2, g / 2]
        codes = (halves[:, :, 0] | (halves[:, :, 1] << 4)).transpose(0, 1).contiguous()
        return cls(rows, columns, 4, q.shape[1] // groups, codes, scales.contiguous())

    @classmethod
    def int8(cls, q: Tensor, scales: Tensor, columns: int, group: int) -> Packed:
        """From codes -128 to 127, int8 [N, K padded], and scales and zeros [groups or 1, N, 2]: `w = q * scale + zero`."""
        codes = q.view(q.shape[0], -1, group).transpose(0, 1).contiguous()
        return cls(q.shape[0], columns, 8, group, codes, scales.contiguous())

    @property
    def numbers(self) -> torch.dtype:
        """What is computed in."""
        return self.scales.dtype

    @property
    def step(self) -> int:
        """1: each group has a scale; 0: each output has one."""
        return int(self.bits > 0 and self.scales.shape[0] == self.codes.shape[0])

    def outputs(self, part: range) -> Packed:
        """Some of its outputs, where they lie."""
        at = slice(part.start, part.stop)
        codes, scales = (self.codes[:, at], self.scales[:, at]) if self.bits else (self.codes[at], self.scales[at])
        return replace(self, rows=len(part), codes=codes, scales=scales)

    def weights(self) -> Tensor:
        """The matrix [N, K] in the dtype of its scales, in plain torch; each weight is rounded once."""
        if not self.bits:
            return self.codes
        codes = torch.cat((self.codes & 15, self.codes >> 4), -1).float() - 8 if self.bits == 4 else self.codes.float()
        wide = torch.addcmul(self.scales[..., 1:].float(), codes, self.scales[..., :1].float()).to(self.numbers)
        return wide.transpose(0, 1).flatten(1)[:, : self.columns]


@dataclass(frozen=True)
class Bank:
    """Matrices by their number; None: not here. All have one shape and one form."""

    parts: tuple[Packed | None, ...]

    @classmethod
    def of(cls, parts: Sequence[Packed | None]) -> Bank | None:
        """None where they differ in shape or form, or none is here."""
        kinds = {(p.rows, p.columns, p.bits, p.group, p.step, p.numbers, p.codes.is_contiguous()) for p in parts if p}
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
