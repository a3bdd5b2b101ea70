"""Parts of a model, from a checkpoint, in the dtype and on the device where they will work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swarm.bits import Bits
from swarm.model.block import BlockCore
from swarm.model.experts import ExpertWeights, SharedExpert
from swarm.model.product import Weight
from swarm.model.stage import Head
from swarm.weights import names
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.losses import Loss
from swarm.weights.matrices import Matrices, Part


@dataclass(frozen=True)
class Loader:
    """Reads parts one at a time and quantizes as it reads: its peak memory is what is kept plus one tensor.

    Args:
        dtype: what is computed in.
        bits: how matrices are kept; None: in `dtype`. The embedding, routers and norms always are.

    Every method raises MissingWeights or CorruptWeights where the files changed since the checkpoint was opened.
    """

    checkpoint: Checkpoint
    dtype: torch.dtype
    device: torch.device | str = "cpu"
    bits: Bits | None = None

    @property
    def losses(self) -> list[Loss]:
        """What quantizing did to each tensor so far."""
        return self._matrices.losses

    def embedding(self) -> Tensor:
        """[V, H]."""
        return self._one(names.EMBEDDING)

    def head(self) -> Head:
        """The last norm and the output matrix; a tied one is a copy of the embedding."""
        tied = self.checkpoint.config.tied_head
        return Head(self._one(names.NORM), self._stacked("head", names.EMBEDDING if tied else names.OUTPUT))

    def core(self, block: int) -> BlockCore:
        """A Block without its experts."""
        part = {letter: name for letter, (name, _) in names.core(self.checkpoint.config, block, self.checkpoint.entries).items()}
        small = {
            letter: self._one(part[letter])
            for letter in ("router", "brouter", "bo", "qn", "kn", "sinks", "sgate")
            if letter in part
        }
        return BlockCore(
            attention_norm=self._one(part["norm1"]),
            wqkv=self._stacked("attention", part["q"], part["k"], part["v"]),
            wo=self._stacked("attention", part["o"]),
            ffn_norm=self._one(part["norm2"]),
            router=small.get("router"),
            bqkv=torch.cat([self._one(part[letter]) for letter in ("bq", "bk", "bv")]) if "bq" in part else None,
            bo=small.get("bo"),
            q_norm=small.get("qn"),
            k_norm=small.get("kn"),
            sinks=small.get("sinks"),
            router_bias=small.get("brouter"),
            shared=SharedExpert(self._mlp(part["s1"], part["s2"], part["s3"]), small.get("sgate")) if "s1" in part else None,
        )

    def expert(self, block: int, index: int) -> ExpertWeights:
        """One expert of a Block; of a dense model, its MLP."""
        config, entries = self.checkpoint.config, self.checkpoint.entries
        if not names.is_fused(block, entries):
            part = {letter: name for letter, (name, _) in names.expert(config, block, index).items()}
            return self._mlp(part["w1"], part["w2"], part["w3"])
        fused = names.experts(config, block)
        w13, w2 = (
            self._matrices.read(role, Part(entries[fused[letter][0]], index))
            for letter, role in (("w13", "experts"), ("w2", "down"))
        )
        b13, b2 = (self._one(fused[letter][0], index) if letter in fused else None for letter in ("b13", "b2"))
        return ExpertWeights(w13, w2, config.activation, b13, b2)

    def _mlp(self, w1: str, w2: str, w3: str) -> ExpertWeights:
        return ExpertWeights(self._stacked("experts", w1, w3), self._stacked("down", w2), self.checkpoint.config.activation)

    def _one(self, name: str, index: int | None = None) -> Tensor:
        return Part(self.checkpoint.entries[name], index).read(self.dtype, self.device)

    def _stacked(self, role: str, *parts: str) -> Weight:
        return self._matrices.read(role, *(Part(self.checkpoint.entries[name]) for name in parts))

    @cached_property
    def _matrices(self) -> Matrices:
        return Matrices(self.dtype, self.device, self.bits)
