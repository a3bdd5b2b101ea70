"""A Block's matrices as they are kept: in numbers, in the codes that their file has, or quantized."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarm.bits import Bits, Form
from swarm.config import Activation, fits
from swarm.errors import CorruptWeights
from swarm.model.memory import in_large_pages, scratch, trim
from swarm.model.product import Weight
from swarm.model.quant.filling import Filling, joined
from swarm.model.quant.matrix import matrix_of
from swarm.weights.codes import Codes
from swarm.weights.entry import AnyEntry
from swarm.weights.feedback import Span, spans_of
from swarm.weights.inputs import Inputs, Rehearsal
from swarm.weights.losses import Loss
from swarm.weights.quantize import Quantized, in_pieces
from swarm.weights.read import floats_of, form_of, read_codes, read_into


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

    def floats(self) -> Tensor:
        """Its numbers as exactly as the file has them, all of them finite. Raises MissingWeights, CorruptWeights."""
        out = scratch(self.shape, floats_of(self.entry))
        read_into(out, self.entry, self.index)
        if out.numel() and not all(math.isfinite(float(end)) for end in out.aminmax()):
            raise CorruptWeights(f"{self.entry.path}: {self.name} has weights that are infinite or no numbers: fetch it again")
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

    def rehearsal(self, role: str, activation: Activation | None = None) -> Rehearsal | None:
        """For the matrices before one of that role, where knowing what it meets helps to quantize it."""
        form: Form | None = getattr(self.bits, role) if self.bits else None
        return Rehearsal(activation) if form is not None and form.kind == "int4" else None

    def read(self, role: str, *parts: Part, rehearsal: Rehearsal | None = None, met: Sequence[Span] | None = None) -> Weight:
        """Matrices of one width, one above the other, in the form of their role.

        Args:
            rehearsal: sees those that are quantized, if all are.
            met: what they are taken to meet, where that is known.

        Raises MissingWeights, CorruptWeights.
        """
        form: Form | None = getattr(self.bits, role) if self.bits else None
        if form is not None and form.quantized:
            matrix = self._in_few_bits(role, parts, form, rehearsal, met).to(self.device)
            trim()
            return matrix
        shape = sum(p.shape[0] for p in parts), parts[0].shape[1]
        out = in_large_pages(torch.empty(shape, dtype=self.dtype, device=self.device))
        at = 0
        for part in parts:
            read_into(out[at : at + part.shape[0]], part.entry, part.index)
            at += part.shape[0]
        return out

    def _in_few_bits(
        self, role: str, parts: Sequence[Part], form: Form, rehearsal: Rehearsal | None, met: Sequence[Span] | None
    ) -> Weight:
        own = [self._own(part, form) for part in parts]
        if any(own):
            return matrix_of([mine or self._codes(role, part, form) for part, mine in zip(parts, own, strict=True)], self.dtype)
        filling = Filling(sum(part.shape[0] for part in parts), self.dtype)
        for part, w, spans in self._with_what_they_meet(role, parts, form, met):
            if rehearsal is not None:
                rehearsal.see(w)
            for made in self._counted(role, part, in_pieces(w, form, spans, self.dtype)):
                filling.add(made.codes)
            del w  # before the next is read
            trim()
        return filling.done()

    def _own(self, part: Part, form: Form) -> Codes | None:
        """The tensor's own codes, where they take no more than the form does."""
        own, (rows, columns) = form_of(part.entry), part.shape
        if own is None or not fits(own, form, rows, columns):
            return None
        return read_codes(part.entry, part.index)

    def _with_what_they_meet(
        self, role: str, parts: Sequence[Part], form: Form, met: Sequence[Span] | None
    ) -> Iterator[tuple[Part, Tensor, Sequence[Span] | None]]:
        # q, k and v meet the same inputs, which all three tell more of; together they take less than an expert's largest does.
        if role == "attention" and form.kind == "int4" and len(parts) > 1:
            read = [part.floats() for part in parts]
            met = spans_of(Inputs.of(*read), parts[0].shape[1])
            yield from ((part, read.pop(0), met) for part in parts)
        else:
            yield from ((part, part.floats(), met) for part in parts)

    def _codes(self, role: str, part: Part, form: Form) -> Codes:
        """Of one tensor, among others that have codes of their own."""
        return joined([made.codes for made in self._counted(role, part, in_pieces(part.floats(), form, None, self.dtype))])

    def _counted(self, role: str, part: Part, pieces: Iterable[Quantized]) -> Iterator[Quantized]:
        lost = squares = 0.0
        for made in pieces:
            lost, squares = lost + made.lost, squares + made.squares
            yield made
        self.losses.append(Loss(part.name, role, lost / squares if squares else 0.0, part.entry.auto_form is not None))
