"""Parts of a model, from a checkpoint, in the dtype and on the device where they will work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.config import INT4_GROUP
from swarm.model.block import BlockCore
from swarm.model.experts import ExpertWeights, SharedExpert
from swarm.model.product import Weight
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.stage import Head
from swarm.weights import names
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.quantize import quantize_int4, quantize_int8
from swarm.weights.read import read_into


@dataclass(frozen=True)
class Loader:
    """Reads parts one at a time and quantizes as it reads: its peak memory is what is kept plus one tensor.

    Args:
        dtype: what is computed in.
        quantized: `int8` or `int4`: how matrices are kept; empty: in `dtype`. The embedding, routers and norms always are.

    Every method raises MissingWeights or CorruptWeights where the files changed since the checkpoint was opened.
    """

    checkpoint: Checkpoint
    dtype: torch.dtype
    device: torch.device | str = "cpu"
    quantized: str = ""

    def embedding(self) -> Tensor:
        """[V, H]."""
        return self._one(names.EMBEDDING)

    def head(self) -> Head:
        """The last norm and the output matrix; a tied one is a copy of the embedding."""
        tied = self.checkpoint.config.tied_head
        return Head(self._one(names.NORM), self._stacked(names.EMBEDDING if tied else names.OUTPUT))

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
            wqkv=self._stacked(part["q"], part["k"], part["v"]),
            wo=self._stacked(part["o"]),
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
        w13, w2 = (self._matrix(self._one(fused[letter][0], index, self._kept)) for letter in ("w13", "w2"))
        b13, b2 = (self._one(fused[letter][0], index) if letter in fused else None for letter in ("b13", "b2"))
        return ExpertWeights(w13, w2, config.activation, b13, b2)

    def _mlp(self, w1: str, w2: str, w3: str) -> ExpertWeights:
        return ExpertWeights(self._stacked(w1, w3), self._stacked(w2), self.checkpoint.config.activation)

    @property
    def _kept(self) -> torch.device | str:
        """Where a matrix is read to: its own Device, or where it is quantized first."""
        return "cpu" if self.quantized else self.device

    def _one(self, name: str, part: int | None = None, device: torch.device | str | None = None) -> Tensor:
        entry = self.checkpoint.entries[name]
        out = torch.empty(entry.shape if part is None else entry.shape[1:], dtype=self.dtype, device=device or self.device)
        read_into(out, entry, part)
        return out

    def _stacked(self, *parts: str) -> Weight:
        """Matrices of one width, one above the other."""
        entries = [self.checkpoint.entries[name] for name in parts]
        out = torch.empty((sum(e.shape[0] for e in entries), *entries[0].shape[1:]), dtype=self.dtype, device=self._kept)
        at = 0
        for entry in entries:
            read_into(out[at : at + entry.shape[0]], entry)
            at += entry.shape[0]
        return self._matrix(out)

    def _matrix(self, w: Tensor) -> Weight:
        if self.quantized == "int4":
            codes = quantize_int4(w, INT4_GROUP)
            return Int4Matrix.of(codes.q, codes.scale, codes.zero, codes.group, self.dtype).to(self.device)
        if self.quantized == "int8":
            return Int8Matrix.of(*quantize_int8(w), self.dtype).to(self.device)
        return w
