"""Which weights every Worker holds under a Plan, as parts that can be compared between two Plans of one model.

The parts are those of `cluster.parts` without the KV: `core` of a Block, one expert of it, `embedding` and `head`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from swarm.config import Sizes
from swarm.plan import Model, Plan, Route

Part = tuple[str, int, int]
"""(`core` or `expert` or `embedding` or `head`, Block, expert)."""
EMBEDDING: Part = ("embedding", 0, 0)
HEAD: Part = ("head", 0, 0)


def core(block: int) -> Part:
    return ("core", block, 0)


def expert(block: int, number: int) -> Part:
    return ("expert", block, number)


def whole(block: int, experts: int) -> set[Part]:
    """A Block with all its experts."""
    return {core(block), *(expert(block, e) for e in range(experts))}


@dataclass(frozen=True)
class Held:
    """Worker → the parts that it holds, and what they weigh."""

    sizes: Sizes
    parts: Mapping[str, frozenset[Part]] = field(default_factory=dict)

    @classmethod
    def by(cls, plan: Plan | None, model: Model) -> Held:
        """What a Plan's Workers hold of a model: nothing where the Plan is of another model or dtype."""
        sizes = model.sizes
        if plan is None or (plan.model.model_id, plan.model.dtype) != (model.model_id, model.dtype):
            return cls(sizes)
        return cls(sizes, _parts(plan))

    def of(self, worker: str) -> frozenset[Part]:
        return self.parts.get(worker, frozenset())

    @cached_property
    def _each(self) -> dict[str, int]:
        sizes = self.sizes
        return {"core": sizes.block_core, "expert": sizes.expert, "embedding": sizes.embedding, "head": sizes.head}

    def bytes_of(self, parts: Iterable[Part]) -> int:
        each = self._each
        return sum(each[kind] for kind, _, _ in parts)

    def missing_bytes(self, worker: str, parts: Iterable[Part]) -> int:
        """What a Worker would have to load to hold these parts."""
        mine = self.of(worker)
        return self.bytes_of(p for p in parts if p not in mine)


def _parts(plan: Plan) -> dict[str, frozenset[Part]]:
    found: defaultdict[str, set[Part]] = defaultdict(set)
    for number, route in enumerate(plan.routes):
        away = {(s.block, e) for s in plan.shards if s.route == number and not s.copy for e in s.experts}
        _add_stages(found, route, plan, away)
    for shard in plan.shards:
        found[shard.worker] |= {expert(shard.block, e) for e in shard.experts}
    for standby in plan.standbys:
        for block in standby.blocks:
            found[standby.worker] |= whole(block, plan.model.config.num_experts)
            found[standby.worker] |= {EMBEDDING} if standby.ends and block == 0 else set()
            found[standby.worker] |= {HEAD} if standby.ends and block == plan.model.config.num_blocks - 1 else set()
    return {worker: frozenset(parts) for worker, parts in found.items()}


def _add_stages(found: defaultdict[str, set[Part]], route: Route, plan: Plan, away: set[tuple[int, int]]) -> None:
    for stage in route.stages:
        for block in stage.blocks:
            mine = (e for e in range(plan.model.config.num_experts) if (block, e) not in away)
            found[stage.worker] |= {core(block), *(expert(block, e) for e in mine)}
    found[route.entry].add(EMBEDDING)
    found[route.last].add(HEAD)
