"""Where one tensor of a GGUF file is, and how its rows lie. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from swarm.bits import Form
from swarm.weights.file import WeightFile
from swarm.weights.gguf.kinds import Kind


@dataclass(frozen=True)
class GgufEntry:
    """A tensor, or one expert of a merged one (see `swarm.weights.entry.AnyEntry`)."""

    file: WeightFile
    name: str
    kind: Kind
    shape: tuple[int, ...]
    """As torch has it: llama.cpp writes dimensions the other way round."""
    offset: int
    """From the start of the file."""
    paired_heads: int = 0
    """Heads whose rows llama.cpp has moved so that the two that RoPE turns together are neighbours; 0: rows as they were."""

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) // self.kind.weights * self.kind.num_bytes

    @property
    def coding(self) -> str:
        return self.kind.name if self.kind.auto_form else ""

    @property
    def form(self) -> Form | None:
        return self.kind.form if len(self.shape) == 2 else None

    @property
    def auto_form(self) -> Form | None:
        return self.kind.auto_form if len(self.shape) == 2 else None

    def moved(self, by: int) -> GgufEntry:
        return replace(self, offset=self.offset + by)

    def part(self, index: int) -> GgufEntry:
        """One of the tensors that this one is a stack of."""
        one = replace(self, shape=self.shape[1:])
        return one.moved(index * one.num_bytes)
