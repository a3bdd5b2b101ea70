"""Parts of a model, from a checkpoint, in the dtype and on the device where they will work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.model.block import BlockCore
from swarm.model.experts import ExpertWeights
from swarm.model.stage import Head
from swarm.weights import names
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.read import read_into


@dataclass(frozen=True)
class Loader:
    """Reads parts one at a time: its peak memory is what is kept plus one tensor.

    Every method raises MissingWeights or CorruptWeights where the files changed since the checkpoint was opened.
    """

    checkpoint: Checkpoint
    dtype: torch.dtype
    device: torch.device | str = "cpu"

    def embedding(self) -> Tensor:
        """[V, H]."""
        return self._one(names.EMBEDDING)

    def head(self) -> Head:
        """The last norm and the output matrix; a tied one is a copy of the embedding."""
        tied = self.checkpoint.config.tied_head
        return Head(self._one(names.NORM), self._one(names.EMBEDDING if tied else names.OUTPUT))

    def core(self, block: int) -> BlockCore:
        """A Block without its experts."""
        part = {letter: name for letter, (name, _) in names.core(self.checkpoint.config, block, self.checkpoint.entries).items()}
        return BlockCore(
            attention_norm=self._one(part["norm1"]),
            wqkv=self._stacked(part["q"], part["k"], part["v"]),
            wo=self._one(part["o"]),
            ffn_norm=self._one(part["norm2"]),
            router=self._one(part["router"]),
        )

    def expert(self, block: int, index: int) -> ExpertWeights:
        """One expert of a Block."""
        config, entries = self.checkpoint.config, self.checkpoint.entries
        if names.is_fused(block, entries):
            fused = names.experts(config, block)
            return ExpertWeights(self._one(fused["w13"][0], index), self._one(fused["w2"][0], index))
        part = {letter: name for letter, (name, _) in names.expert(config, block, index).items()}
        return ExpertWeights(self._stacked(part["w1"], part["w3"]), self._one(part["w2"]))

    def _one(self, name: str, part: int | None = None) -> Tensor:
        entry = self.checkpoint.entries[name]
        out = self._empty(entry.shape if part is None else entry.shape[1:])
        read_into(out, entry, part)
        return out

    def _stacked(self, *parts: str) -> Tensor:
        """Matrices of one width, one above the other."""
        entries = [self.checkpoint.entries[name] for name in parts]
        out = self._empty((sum(e.shape[0] for e in entries), *entries[0].shape[1:]))
        at = 0
        for entry in entries:
            read_into(out[at : at + entry.shape[0]], entry)
            at += entry.shape[0]
        return out

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)
