"""Whole Stages of the embedded model on any device, with any kernels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from swarm.bits import Bits
from swarm.model.block import Block
from swarm.model.cache import PagedCache
from swarm.model.dtypes import numbers_of
from swarm.model.experts import LocalExperts
from swarm.model.kernels.choice import kernels_for, recorder_for
from swarm.model.kernels.port import Kernels
from swarm.model.kernels.replay import Recorder
from swarm.model.rows import Rows, Segment
from swarm.model.stage import Stage
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.load import Loader
from swarm.weights.source import resolve

A_CONVERSATION = ({b"a": 37}, {b"a": 1}, {b"b": 16, b"a": 1}, {b"a": 1, b"b": 1}, {b"b": 9, b"a": 3}, {b"a": 1})
"""Rows of each Session in each micro-batch: prefill, decode, chunks behind a history, and mixes of all three."""


class Loaded:
    """Some Blocks of the embedded model as one Stage, and its cache."""

    def __init__(
        self,
        dtype: str = "fp32",
        device: str = "cpu",
        blocks: Iterable[int] = range(8),
        kernels: Kernels | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        numbers, self.device = numbers_of(dtype), torch.device(device)
        loader = Loader(Checkpoint.open(resolve("nano")), numbers, self.device, Bits.of(dtype))
        config, blocks = loader.checkpoint.config, list(blocks)
        weights = {(b, e): loader.expert(b, e) for b in blocks for e in range(config.num_experts)}
        self.experts = LocalExperts.of(weights, kernels or kernels_for(self.device, numbers))
        self.cores = {b: loader.core(b) for b in blocks}
        self.ends = loader.embedding(), loader.head()
        self.config, self.kernels, self.numbers = config, kernels, numbers
        self.recorder = recorder or recorder_for(self.device, numbers)
        self.cache = self.new_cache()
        self.stage = self.new_stage(blocks, self.cache)

    def new_cache(self) -> PagedCache:
        cache = PagedCache(self.config, 64, 8, self.numbers, self.device, kernels=self.kernels)
        for block in self.cores:
            cache.add_block(block)
        assert cache.reserve(b"a", 60) and cache.reserve(b"b", 20) and cache.reserve(b"a", 90), "scattered pages"
        assert cache.reserve(b"b", 60)
        return cache

    def new_stage(self, blocks: Iterable[int], cache: PagedCache) -> Stage:
        ports = dict.fromkeys(range(self.config.num_experts), self.experts)
        stage = Stage(self.config, {b: Block.of(self.config, b, self.cores[b], ports) for b in blocks}, *self.ends)
        return stage.replayed(cache, self.recorder) if self.recorder else stage

    def conversation(self, stages: Iterable[Stage] = ()) -> list[Tensor]:
        """Logits of all rows of `A_CONVERSATION`, by Stages that follow each other and share the cache: the one by default."""
        draw, at, out = torch.Generator().manual_seed(5), {b"a": 0, b"b": 0}, []
        stages = list(stages) or [self.stage]
        for call in A_CONVERSATION:
            segments, rows = [], 0
            for session, count in call.items():
                segments.append(Segment(session, rows, rows + count, at[session]))
                at[session], rows = at[session] + count, rows + count
            tokens = torch.randint(3, 3000, (rows,), generator=draw)
            h = stages[0].embed(tokens.tolist())
            for stage in stages:
                h = stage.forward(h, Rows.of(segments, self.device), self.cache)
            out.append(stages[-1].logits(h))
        return out
