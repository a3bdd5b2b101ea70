"""A Block's matrices as they are kept: in numbers, in the codes that their file has, or quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarm.bits import Bits, Form
from swarm.config import fits
from swarm.model.memory import trim
from swarm.model.product import Weight
from swarm.model.quant.matrix import matrix_of
from swarm.weights.codes import Codes
from swarm.weights.entry import AnyEntry
from swarm.weights.inputs import Inputs, Rehearsal
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

    def rehearsal(self, role: str) -> Rehearsal | None:
        """For the matrices before one of that role, where knowing what it meets helps to quantize it."""
        form: Form | None = getattr(self.bits, role) if self.bits else None
        return Rehearsal() if form is not None and form.kind == "int4" else None

    def read(self, role: str, *parts: Part, rehearsal: Rehearsal | None = None, inputs: Inputs | None = None) -> Weight:
        """Matrices of one width, one above the other, in the form of their role.

        Args:
            rehearsal: sees those that are quantized, if all are.
            inputs: what they are taken to meet, where that is known.

        Raises MissingWeights, CorruptWeights.
        """
        form: Form | None = getattr(self.bits, role) if self.bits else None
        if form is not None and form.quantized:
            own = [self._own(part, form) for part in parts]
            if any(own):
                codes = [mine or self._quantized(role, part, form) for part, mine in zip(parts, own, strict=True)]
            else:
                codes = self._all_quantized(role, parts, form, rehearsal, inputs)
            matrix = matrix_of(codes, self.dtype).to(self.device)
            del codes
            trim()
            return matrix
        out = torch.empty((sum(p.shape[0] for p in parts), parts[0].shape[1]), dtype=self.dtype, device=self.device)
        at = 0
        for part in parts:
            read_into(out[at : at + part.shape[0]], part.entry, part.index)
            at += part.shape[0]
        return out

    def _own(self, part: Part, form: Form) -> Codes | None:
        """The tensor's own codes, where they take no more than the form does."""
        own, (rows, columns) = form_of(part.entry), part.shape
        if own is None or not fits(own, form, rows, columns):
            return None
        return read_codes(part.entry, part.index)

    def _all_quantized(
        self, role: str, parts: Sequence[Part], form: Form, rehearsal: Rehearsal | None, inputs: Inputs | None
    ) -> list[Codes]:
        # q, k and v meet the same inputs, which all three tell more of; together they take less than an expert's largest does.
        pooled = role == "attention" and form.kind == "int4" and len(parts) > 1
        read = [part.read(torch.float32) for part in parts] if pooled else []
        inputs = Inputs.of(*read) if pooled else inputs
        codes = []
        for i, part in enumerate(parts):
            w = read[i] if pooled else part.read(torch.float32)
            if rehearsal is not None:
                rehearsal.see(w)
            codes.append(self._quantized(role, part, form, w, inputs))
        return codes

    def _quantized(self, role: str, part: Part, form: Form, w: Tensor | None = None, inputs: Inputs | None = None) -> Codes:
        made = quantize(w if w is not None else part.read(torch.float32), form, inputs, self.dtype)
        self.losses.append(Loss(part.name, role, made.error, part.entry.auto_form is not None))
        trim()
        return made.codes
