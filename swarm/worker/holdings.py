"""The weights that a Worker holds, part by part, whichever epochs use them.

A part is an embedding, a head, a Block's core or one expert. A new Plan loads the parts that are missing; a retired one
gives back those that no other epoch needs. Blocks that stay are never loaded twice.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import torch

from swarm.config import Sizes
from swarm.model.block import BlockCore
from swarm.model.experts import ExpertWeights
from swarm.model.kernels.recording import empty_cache
from swarm.model.memory import num_bytes, trim
from swarm.model.stage import Head
from swarm.plan import Model, Plan
from swarm.weights.cache.tree import Weights
from swarm.weights.load import Loader
from swarm.weights.losses import Again
from swarm.wire.v1 import worker_pb2 as pb


@dataclass(frozen=True, order=True)
class Part:
    """The name of one part of one model in one dtype."""

    model: tuple[str, str]
    """Model id and dtype."""
    kind: str
    """embedding, head, core or expert."""
    block: int = -1
    expert: int = -1

    @property
    def file_name(self) -> str:
        """What a cache calls it."""
        return "-".join([self.kind, *(f"{n:03}" for n in (self.block, self.expert) if n >= 0)])


def parts_of(plan: Plan, name: str) -> list[Part]:
    """What a Worker must hold for a Plan, in the order in which it is loaded: what serves first, then what it stands by for."""
    model = (plan.model.model_id, plan.model.dtype)
    route = plan.route_of(name)
    stage = plan.stage_of(name, route) if route is not None else None
    blocks = stage.blocks if stage else range(0)
    parts = [Part(model, "embedding")] if 0 in blocks else []
    parts += [Part(model, "core", b) for b in blocks]
    parts += [Part(model, "head")] if plan.model.config.num_blocks - 1 in blocks else []
    parts += [Part(model, "expert", b, e) for b in blocks for e in plan.local_experts(name, b)]
    parts += [
        Part(model, "expert", s.block, e) for s in plan.shards_of(name) for e in s.experts if plan.model.config.experts_in(s.block)
    ]
    copied = {b for s in plan.standbys if s.worker == name and s.ends for b in s.blocks}
    parts += [Part(model, "embedding")] if 0 in copied else []
    parts += [Part(model, "head")] if plan.model.config.num_blocks - 1 in copied else []
    for block in (b for s in plan.standbys if s.worker == name for b in s.blocks):
        parts.append(Part(model, "core", block))
        parts += [Part(model, "expert", block, e) for e in plan.local_experts(name, block)]
    return list(dict.fromkeys(parts))


def part_bytes(part: Part, sizes: Sizes) -> int:
    """What a part weighs once converted."""
    return {"embedding": sizes.embedding, "head": sizes.head, "core": sizes.core(part.block), "expert": sizes.expert}[part.kind]


class Holdings:
    """Part → weights. Lives on the loop's thread: what a loading thread has read is added there."""

    def __init__(self) -> None:
        self._parts: dict[Part, Weights] = {}
        self._again: dict[tuple[str, str], Again] = {}
        self._cached: dict[tuple[str, str], BinaryIO] = {}

    def missing(self, parts: Iterable[Part]) -> list[Part]:
        return [p for p in parts if p not in self._parts]

    def add(self, part: Part, weights: Weights) -> None:
        self._parts[part] = weights

    def loaded(self, model: tuple[str, str], again: Again, cached: BinaryIO | None) -> None:
        """Parts of a model were loaded.

        Args:
            again: what quantizing them a second time cost; more is added as more is loaded.
            cached: kept open as long as parts of that model are here (see `swarm.weights.cache.limit.use`).
        """
        self._again = {model: self._again.get(model, Again()) + again}
        if cached is not None:
            self._cached[model] = cached

    def tell(self, status: pb.WorkerStatus, model: Model) -> None:
        """Put that into a status."""
        again = self._again.get((model.model_id, model.dtype), Again())
        status.requantized, status.requantized_error = again.count, again.error

    def keep_only(self, parts: Iterable[Part]) -> None:
        """Give back all other parts, to the operating system too."""
        keep = set(parts)
        gone = [p for p in self._parts if p not in keep]
        for part in gone:
            del self._parts[part]
        for model in self._cached.keys() - {part.model for part in self._parts}:
            self._cached.pop(model).close()
        if gone:
            release_memory()

    def embedding(self, model: tuple[str, str]) -> torch.Tensor:
        found = self._parts[Part(model, "embedding")]
        assert isinstance(found, torch.Tensor)
        return found

    def head(self, model: tuple[str, str]) -> Head:
        found = self._parts[Part(model, "head")]
        assert isinstance(found, Head)
        return found

    def core(self, model: tuple[str, str], block: int) -> BlockCore:
        found = self._parts[Part(model, "core", block)]
        assert isinstance(found, BlockCore)
        return found

    def experts(self, parts: Iterable[Part]) -> dict[tuple[int, int], ExpertWeights]:
        """The experts among these parts, by Block and expert id."""
        return {(p.block, p.expert): found for p in parts if isinstance(found := self._parts[p], ExpertWeights)}

    @property
    def num_bytes(self) -> int:
        return sum(num_bytes(p) if isinstance(p, torch.Tensor) else p.num_bytes for p in self._parts.values())


def read_part(part: Part, loader: Loader) -> Weights:
    """Load one part. Raises what the loader does."""
    if part.kind == "embedding":
        return loader.embedding()
    if part.kind == "head":
        return loader.head()
    return loader.core(part.block) if part.kind == "core" else loader.expert(part.block, part.expert)


def release_memory() -> None:
    """Hand what was freed back to the operating system and the card, where the allocators would keep it."""
    gc.collect()
    if torch.cuda.is_available():
        empty_cache()
    trim()
