"""What a Worker must hold, in bytes: the one place that counts it, whichever way the Plan was decided."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from swarm.config import Sizes
from swarm.errors import UsageError
from swarm.plan import MAX_ROWS, PAGE_POSITIONS, Model, Plan
from swarm.plan_check import OBJECTIVES


@dataclass(frozen=True)
class Load:
    """What to plan for.

    Args:
        sessions: Sessions that hold KV at the same time.
        context: positions of each; the model's own limit caps it.
        spread: use every Device, also where fewer would do.
        objective: what the Plan is decided for, one of `OBJECTIVES`; see `objective_s`.
        standby: every Block has a copy on another Rig than those that serve it.

    Raises:
        UsageError: sessions or context below 1, or no such objective.
    """

    sessions: int = 4
    context: int = 8192
    spread: bool = False
    objective: str = "balanced"
    standby: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UsageError(f"--objective {self.objective} is none of {', '.join(OBJECTIVES)}")
        if self.sessions < 1 or self.context < 1:
            raise UsageError(f"sessions={self.sessions} and context={self.context} must both be at least 1")


@dataclass(frozen=True)
class Budget:
    """What one Worker is planned to hold, in bytes."""

    weights_bytes: int
    kv_bytes: int
    workspace_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.workspace_bytes


@dataclass(frozen=True)
class Prices:
    """What each thing that a Worker may hold costs for one model under one load, in bytes."""

    sizes: Sizes
    sessions: int
    """Sessions that hold KV on one Route."""
    context: int
    """Positions of one Session, capped at the model's own limit."""
    to_the_byte: bool = False
    """Whether a first Stage is counted without the experts that a dense Block 0 lacks: right where all of that Block is its own."""

    @classmethod
    def of(cls, model: Model, load: Load, routes: int = 1) -> Prices:
        """Of a Plan with that many Routes, which share the Sessions out evenly."""
        sessions = -(-load.sessions // routes)
        return cls(model.sizes, sessions, min(load.context, model.config.max_positions))

    @property
    def num_blocks(self) -> int:
        return self.sizes.config.num_blocks

    @property
    def num_experts(self) -> int:
        return self.sizes.config.num_experts

    @property
    def expert(self) -> int:
        return self.sizes.expert

    @property
    def kv(self) -> int:
        """The KV pages of one Block, for all Sessions."""
        return self.sizes.kv(self.sessions * -(-self.context // PAGE_POSITIONS) * PAGE_POSITIONS)

    @property
    def core(self) -> int:
        """What stays with a Block's owner: the Block without its experts, and its KV."""
        return self.sizes.block_core + self.kv

    @property
    def whole(self) -> int:
        """A Block with its KV and all its experts."""
        return self.core + self.num_experts * self.expert

    def budget(self, blocks: range, remote: int, held: int, standing_by: int = 0, copied: Set[int] = frozenset()) -> Budget:
        """Of a Worker with that Stage (empty: none), `remote` experts of it elsewhere, and `held` experts of others.

        Args:
            standing_by: Blocks that it keeps a copy of, with room for their KV.
            copied: those of them that it could serve: with them come the ends of the model.
        """
        first = 0 in copied or (blocks.start == 0 and bool(blocks))
        last = self.num_blocks - 1 in copied or (blocks.stop == self.num_blocks and bool(blocks))
        ends = first * (self.sizes.embedding + self.sizes.first_more) + last * self.sizes.head
        experts = len(blocks) * self.num_experts - remote + held
        return Budget(
            weights_bytes=len(blocks) * self.sizes.block_core + experts * self.expert + ends + standing_by * self.sizes.block,
            kv_bytes=(len(blocks) + standing_by) * self.kv,
            workspace_bytes=self.sizes.workspace(MAX_ROWS, last, self.context if blocks or standing_by else 0),
        )

    def fixed(self, first: bool, last: bool) -> int:
        """What a Stage costs beside its Blocks: workspace, and the ends of the model that it has."""
        less = self.lacking if self.to_the_byte else 0
        ends = first * (self.sizes.embedding + self.sizes.first_more - less) + last * self.sizes.head
        return ends + self.sizes.workspace(MAX_ROWS, last, self.context)

    @property
    def lacking(self) -> int:
        """Experts that are counted for Block 0 and that it lacks: the only Block that is dense."""
        return self.num_experts * self.expert if self.sizes.dense_first else 0

    @property
    def helper(self) -> int:
        """What a Worker without a Stage costs beside the experts that it holds."""
        return self.sizes.workspace(MAX_ROWS, False)


def budget_of(plan: Plan, name: str) -> Budget:
    """What a Plan asks of one of its Workers; raises PlacementError where it has none of that name.

    Weights are counted part by part: where Blocks are not alike it is less than what the Plan was decided with, never more.
    """
    sizes, prices = plan.model.sizes, Prices(plan.model.sizes, plan.sessions_a_route, plan.context)
    route = plan.route_of(plan.worker(name).name)
    stage = plan.stage_of(name, route) if route is not None else None
    blocks = stage.blocks if stage else range(0)
    standing_by = {b for s in plan.standbys if s.worker == name for b in s.blocks}
    copied = {b for s in plan.standbys if s.worker == name and s.ends for b in s.blocks}
    ends = (0 in blocks or 0 in copied) * sizes.embedding + (
        (last := prices.num_blocks - 1) in blocks or last in copied
    ) * sizes.head
    cores = sum(sizes.core(b) for b in blocks) + sum(sizes.core(b) for b in standing_by)
    experts = sum(len(plan.local_experts(name, b)) for b in range(prices.num_blocks))
    counted = prices.budget(blocks, 0, 0, len(standing_by), copied)
    return replace(counted, weights_bytes=ends + cores + experts * sizes.expert)


def needed_bytes(model: Model, load: Load) -> int:
    """Weights, KV and workspace of the smallest Plan: everything on one Device."""
    prices = Prices.of(model, load)
    return replace(prices.budget(range(prices.num_blocks), 0, 0), weights_bytes=model.sizes.weights).total_bytes
