"""What a Worker holds under a Plan, as parts that can be compared between two Plans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from swarm.config import Sizes
from swarm.plan import Plan

Part = tuple[str, int, int]
"""(`core` or `expert` or `kv` or `embedding` or `head`, Block, expert)."""


def parts(plan: Plan, name: str) -> dict[Part, int]:
    """The bytes of every part that a Worker keeps under a Plan; empty where the Plan does not have it."""
    sizes = Sizes(plan.model.config, plan.model.dtype)
    num_blocks = plan.model.config.num_blocks
    found: dict[Part, int] = {}
    for route in range(len(plan.routes)):
        stage = plan.stage_of(name, route)
        if stage is None:
            continue
        kv = sizes.kv(plan.kv_pages * plan.page_positions)
        found |= {("core", b, 0): sizes.block_core for b in stage.blocks} | {("kv", b, plan.kv_pages): kv for b in stage.blocks}
        found |= {("embedding", 0, 0): sizes.embedding} if stage.first == 0 else {}
        found |= {("head", 0, 0): sizes.head} if stage.end == num_blocks else {}
    return found | {("expert", b, e): sizes.expert for b in range(num_blocks) for e in plan.local_experts(name, b)}


def release_first(held: Iterable[Plan | None], new: Plan, name: str) -> bool:
    """Whether a Worker must give up what it holds before it can load the new Plan: all together exceed its memory.

    What several Plans give it (weights of the same model and dtype, KV of the same Block and size) counts once.

    Args:
        held: the Plans that it may hold; None: one that nobody knows, for which there is never room.
    """
    plans = list(held)
    known = [plan for plan in plans if plan and any(w.name == name for w in plan.workers)]
    if None in plans or not known:
        return None in plans
    together: dict[tuple[str, str, Part], int] = {}
    for plan in (*known, new):
        together |= {(plan.model.model_id, plan.model.dtype, part): size for part, size in parts(plan, name).items()}
    workspace = max(plan.worker(name).workspace_bytes for plan in (*known, new))
    return sum(together.values()) + workspace > new.worker(name).memory_bytes


def holding(plan: Plan | None, name: str, where: str) -> str:
    """What a Worker holds, for people: `stage 0 · blocks 0-11 · rig-a cuda:0`."""
    words: list[str] = []
    routes = plan.routes if plan else ()
    for number, route in enumerate(routes):
        for place, stage in enumerate(route.stages):
            if stage.worker == name:
                label = f"stage {place}" if len(routes) == 1 else f"route {number} stage {place}"
                words.append(f"{label} · {_blocks(list(stage.blocks))}")
    shards = sorted({s.block for s in plan.shards_of(name)}) if plan else []
    if shards:
        words.append(f"shards of {_blocks(shards)}")
    return " · ".join([*(words or ["idle"]), where])


def same_assignment(old: Plan | None, new: Plan) -> bool:
    """Whether two Plans give the same parts to the same Workers."""
    return old is not None and replace(new, epoch=old.epoch, notes=old.notes) == old


def _blocks(blocks: list[int]) -> str:
    """`block 3`, `blocks 0-11`, `blocks 1, 4, 7-9`."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][1] + 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"block{'s' if len(blocks) > 1 else ''} {text}"
