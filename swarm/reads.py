"""What one row reads of a Worker's weights: the bytes that its time is measured against."""

from __future__ import annotations

from swarm.plan import Plan


def row_bytes(plan: Plan, name: str, route: int) -> int:
    """Weights that one row reads of a Worker's Stage: of each Block its core and, of the experts that the row chooses, as large
    a share as is held here; and the head, where the Stage has it."""
    stage = plan.stage_of(name, route)
    if stage is None:
        return 0
    sizes, config = plan.model.sizes, plan.model.config
    here = sum(len(plan.local_experts(name, b)) for b in stage.blocks)
    experts = round(here * config.top_k / config.num_experts * sizes.expert)
    return len(stage.blocks) * sizes.block_core + experts + (sizes.head if stage.end == config.num_blocks else 0)
