"""Tiny models: random ones that transformers wrote, and the embedded one; put together over any split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from swarm.bits import Bits
from swarm.config import ModelConfig
from swarm.model.block import Block, BlockCore
from swarm.model.cache import PagedCache
from swarm.model.experts import ExpertPort, ExpertWeights, LocalExperts
from swarm.model.rows import Rows, Segment
from swarm.model.stage import Head, Stage
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.load import Loader
from swarm.weights.source import resolve


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest, one_thread: None) -> int:
    """Of torch, for what is compiled: as many compute it."""
    count: int = request.param
    torch.set_num_threads(count)
    return count


@dataclass
class Weights:
    """A model's parts, loaded once, from which Stages of any split are made."""

    folder: Path
    config: ModelConfig
    dtype: torch.dtype
    embedding: Tensor
    head: Head
    cores: list[BlockCore]
    experts: dict[tuple[int, int], ExpertWeights]

    @classmethod
    def of(cls, folder: Path, dtype: torch.dtype, bits: Bits | None = None) -> Weights:
        loader = Loader(Checkpoint.open(folder), dtype, bits=bits)
        config = loader.checkpoint.config
        experts = {(b, e): loader.expert(b, e) for b in range(config.num_blocks) for e in range(config.experts_in(b))}
        cores = [loader.core(b) for b in range(config.num_blocks)]
        return cls(folder, config, dtype, loader.embedding(), loader.head(), cores, experts)

    def stage(self, first: int, end: int, port: Callable[[int, int], ExpertPort] | None = None) -> Stage:
        """Blocks `first` to `end`; `port` says where an expert (block, id) is, here by default."""
        local = LocalExperts(self.experts)
        blocks = {
            b: Block.of(self.config, b, self.cores[b], {e: port(b, e) if port else local for e in range(self.config.experts_in(b))})
            for b in range(first, end)
        }
        last = end == self.config.num_blocks
        return Stage(self.config, blocks, None if first else self.embedding, self.head if last else None)

    def cache(self, pages: int = 64, page_positions: int = 8, kept_as: str = "") -> PagedCache:
        cache = PagedCache(self.config, pages, page_positions, self.dtype, kept_as=kept_as)
        for block in range(self.config.num_blocks):
            cache.add_block(block)
        return cache


class Swarm:
    """Stages in order, each with a cache of its own, as Workers would have them; hidden states cross as bytes."""

    def __init__(self, weights: Weights, ends: list[int], port: Callable[[int, int], ExpertPort] | None = None) -> None:
        firsts = [0, *ends[:-1]]
        self.stages = [weights.stage(first, end, port) for first, end in zip(firsts, ends, strict=True)]
        self.caches = [weights.cache() for _ in ends]

    def reserve(self, session: bytes, positions: int) -> None:
        for cache in self.caches:
            assert cache.reserve(session, positions)

    def step(self, *steps: tuple[bytes, int, list[int]]) -> Tensor:
        """Logits [R, V] of a micro-batch of (session, position, tokens)."""
        segments, at = [], 0
        for session, position, tokens in steps:
            segments.append(Segment(session, at, at + len(tokens), position))
            at += len(tokens)
        rows = Rows.of(segments)
        h = self.stages[0].embed([t for _, _, tokens in steps for t in tokens])
        for stage, cache in zip(self.stages, self.caches, strict=True):
            h = stage.forward(wired(h), rows, cache)
            assert h.is_contiguous()
        return self.stages[-1].logits(h)

    def greedy(self, session: bytes, prompt: list[int], count: int, eos: int | None = None) -> list[int]:
        """The best `count` tokens after `prompt`."""
        self.reserve(session, len(prompt) + count)
        tokens = [int(self.step((session, 0, prompt))[-1].argmax())]
        while len(tokens) < count and tokens[-1] != eos:
            tokens.append(int(self.step((session, len(prompt) + len(tokens) - 1, tokens[-1:]))[-1].argmax()))
        return tokens


def wired(x: Tensor) -> Tensor:
    """The same numbers as they would come off a wire: in a buffer that starts anywhere."""
    data = bytearray(4) + bytearray(x.contiguous().view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(data, dtype=torch.uint8)[4:].view(x.dtype).view(x.shape)


@dataclass(frozen=True)
class FarExperts:
    """The twin of experts on another Worker: rows go there and outputs come back as bytes."""

    weights: dict[tuple[int, int], ExpertWeights]

    def ask(self, block: int, hidden: Tensor, rows: Any) -> Callable[[], dict[int, Tensor]]:
        arrived = wired(hidden)
        local = LocalExperts(self.weights).ask(block, arrived, rows)
        return lambda: {e: wired(y) for e, y in local().items()}


def write_random(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **shape: Any) -> MixtralForCausalLM:
    """A random Mixtral in `folder`, and transformers' own of it, in fp32."""
    settings = {
        "vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None,
        "max_position_embeddings": 512, "initializer_range": 0.2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }  # fmt: skip
    torch.manual_seed(seed)
    model = MixtralForCausalLM(MixtralConfig(**(settings | shape))).to(dtype).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    model.save_pretrained(folder)
    return model.float()


@pytest.fixture
def random_model(tmp_path: Path) -> Callable[..., tuple[MixtralForCausalLM, Weights]]:
    """Writes a random Mixtral and gives transformers' model of it and its Weights in fp32."""

    def make(**shape: Any) -> tuple[MixtralForCausalLM, Weights]:
        oracle = write_random(tmp_path, **shape)
        return oracle, Weights.of(tmp_path, torch.float32)

    return make


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[families.Logits, Weights]]:
    """A family's oracle and its Weights in fp32, made once."""
    made: dict[str, tuple[families.Logits, Weights]] = {}

    def give(name: str) -> tuple[families.Logits, Weights]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = families.write(name, folder), Weights.of(folder, torch.float32)
        return made[name]

    return give


@pytest.fixture(scope="session")
def nano() -> Callable[[torch.dtype], Weights]:
    """The embedded model in a dtype."""
    loaded: dict[torch.dtype, Weights] = {}

    def give(dtype: torch.dtype) -> Weights:
        if dtype not in loaded:
            loaded[dtype] = Weights.of(resolve("nano"), dtype)
        return loaded[dtype]

    return give


@pytest.fixture
def swarm_of() -> type[Swarm]:
    return Swarm


@pytest.fixture
def far_experts() -> type[FarExperts]:
    return FarExperts
