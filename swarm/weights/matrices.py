"""A Block's matrices as they are kept: in numbers, in the codes that their file has, or quantized."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarm.bits import Bits, Form
from swarm.model.product import Weight
from swarm.model.quant.matrix import matrix_of
from swarm.weights.codes import Codes
from swarm.weights.entry import AnyEntry
from swarm.weights.losses import Loss
from swarm.weights.quantize import quantize
from swarm.weights.read import form_of, read_codes, read_into


@dataclass(frozen=True)
class Part:
    """A tensor of a checkpoint, or one of those that it is made of along its first dimension."""

    entry: AnyEntry
    index: int | None = None

    @property
    def name(self) -> str:
        return self.entry.name if self.index is None else f"{self.entry.name}[{self.index}]"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape if self.index is None else self.entry.shape[1:]

    def read(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """Its numbers. Raises MissingWeights, CorruptWeights."""
        out = torch.empty(self.shape, dtype=dtype, device=device)
        read_into(out, self.entry, self.index)
        return out


@dataclass(frozen=True)
class Matrices:
    """Reads matrices, one tensor at a time.

    Args:
        dtype: what is computed in.
        bits: how matrices are kept; None: all in `dtype`.
        losses: grows by what quantizing did to each tensor.
    """

    dtype: torch.dtype
    device: torch.device | str
    bits: Bits | None
    losses: list[Loss] = field(default_factory=list)

    def read(self, role: str, *parts: Part) -> Weight:
        """Matrices of one width, one above the other, in the form of their role. Raises MissingWeights, CorruptWeights."""
        form: Form | None = getattr(self.bits, role) if self.bits else None
        if form is not None and form.quantized:
            return matrix_of([self._codes(role, part, form) for part in parts], self.dtype).to(self.device)
        out = torch.empty((sum(p.shape[0] for p in parts), parts[0].shape[1]), dtype=self.dtype, device=self.device)
        at = 0
        for part in parts:
            read_into(out[at : at + part.shape[0]], part.entry, part.index)
            at += part.shape[0]
        return out

    def _codes(self, role: str, part: Part, form: Form) -> Codes:
        """The tensor's own codes where they take no more than the form does, else new ones."""
        own, (rows, columns) = form_of(part.entry), part.shape
        if own is not None and own.matrix_bytes(rows, columns) <= form.matrix_bytes(rows, columns):
            codes = read_codes(part.entry, part.index)
            assert codes is not None, "it has a form"
            return codes
        made = quantize(part.read(torch.float32), form)
        self.losses.append(Loss(part.name, role, made.error, part.entry.auto_form is not None))
        return made.codes
