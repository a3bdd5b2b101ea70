"""Parts of a model, from a checkpoint, in the dtype and on the device where they will work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from swarm.weights.feedback import spans_of
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
        return Head(self._one(names.NORM), self._matrix("head", names.EMBEDDING if tied else names.OUTPUT))

    def core(self, block: int) -> BlockCore:
        """A Block without its experts."""
        part = {letter: name for letter, (name, _) in names.core(self.checkpoint.config, block, self.checkpoint.entries).items()}
        small = {
            letter: self._one(part[letter])
            for letter in ("router", "brouter", "bo", "qn", "kn", "sinks", "sgate")
            if letter in part
        }
        wqkv, wo = self._attention(part)
        return BlockCore(
            attention_norm=self._one(part["norm1"]),
            wqkv=wqkv,
            wo=wo,
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
        w13, w2 = self._gate_up_down([Part(entries[fused["w13"][0]], index)], Part(entries[fused["w2"][0]], index))
        b13, b2 = (self._one(fused[letter][0], index) if letter in fused else None for letter in ("b13", "b2"))
        return ExpertWeights(w13, w2, config.activation, b13, b2)

    def _mlp(self, w1: str, w2: str, w3: str) -> ExpertWeights:
        entries = self.checkpoint.entries
        w13, down = self._gate_up_down([Part(entries[w1]), Part(entries[w3])], Part(entries[w2]))
        return ExpertWeights(w13, down, self.checkpoint.config.activation)

    def _gate_up_down(self, w13: Sequence[Part], w2: Part) -> tuple[Weight, Weight]:
        rehearsal = self._matrices.rehearsal("down", self.checkpoint.config.activation)
        first = self._matrices.read("experts", *w13, rehearsal=rehearsal)
        inputs = rehearsal.gated() if rehearsal else None
        met, inputs = spans_of(inputs, w2.shape[1]) if inputs else None, None
        return first, self._matrices.read("down", w2, met=met)

    def _attention(self, part: Mapping[str, str]) -> tuple[Weight, Weight]:
        entries, config = self.checkpoint.entries, self.checkpoint.config
        rehearsal = self._matrices.rehearsal("attention")
        wqkv = self._matrices.read("attention", *(Part(entries[part[letter]]) for letter in "qkv"), rehearsal=rehearsal)
        inputs = rehearsal.attended(config.num_heads, config.head_dim) if rehearsal else None
        o = Part(entries[part["o"]])
        return wqkv, self._matrices.read("attention", o, met=spans_of(inputs, o.shape[1]) if inputs else None)

    def _one(self, name: str, index: int | None = None) -> Tensor:
        return Part(self.checkpoint.entries[name], index).read(self.dtype, self.device)

    def _matrix(self, role: str, name: str) -> Weight:
        return self._matrices.read(role, Part(self.checkpoint.entries[name]))

    @cached_property
    def _matrices(self) -> Matrices:
        return Matrices(self.dtype, self.device, self.bits)
