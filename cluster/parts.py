"""What a Worker holds under a Plan, as parts that can be compared between two Plans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from swarm.plan import Plan

Part = tuple[str, int, int]
"""(`core` or `expert` or `kv` or `embedding` or `head`, Block, expert)."""
CUT_OTHERWISE = 2
"""`start_rows` that are more times as large are another Plan. A chunk grows with their root: one 1.4 times the best costs 6%."""


def parts(plan: Plan, name: str) -> dict[Part, int]:
    """The bytes of every part that a Worker keeps under a Plan; empty where the Plan does not have it.

    Experts count whether they are its own Blocks', held for others, or copies. The KV of what it only stands by for is
    not taken before the Worker serves it: it is no part.
    """
    sizes = plan.model.sizes
    num_blocks = plan.model.config.num_blocks
    route = plan.route_of(name)
    stage = plan.stage_of(name, route) if route is not None else None
    blocks = stage.blocks if stage else range(0)
    kv = sizes.kv(plan.kv_pages * plan.page_positions)
    found: dict[Part, int] = {("core", b, 0): sizes.core(b) for b in (*blocks, *_standing_by(plan, name))}
    found |= {(f"kv{plan.model.kv}", b, plan.kv_pages): kv for b in blocks}
    found |= {("embedding", 0, 0): sizes.embedding} if 0 in blocks else {}
    found |= {("head", 0, 0): sizes.head} if num_blocks - 1 in blocks else {}
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
    """What a Worker holds, for people: `stage 0 · blocks 0-11 · standby for blocks 12-15 · rig-a cuda:0`."""
    words = [*_stages(plan, name), *_shards(plan, name)] if plan else []
    if plan and (blocks := _standing_by(plan, name)):
        words.append(f"standby for {_blocks(blocks)}")
    return " · ".join([*(words or ["idle"]), where])


def _stages(plan: Plan, name: str) -> Iterator[str]:
    for number, route in enumerate(plan.routes):
        for place, stage in enumerate(route.stages):
            if stage.worker == name:
                label = f"stage {place}" if len(plan.routes) == 1 else f"route {number} stage {place}"
                yield f"{label} · {_blocks(list(stage.blocks))}"


def _shards(plan: Plan, name: str) -> Iterator[str]:
    for what, copy in (("shards of", False), ("copies of experts of", True)):
        if blocks := sorted({s.block for s in plan.shards_of(name) if s.copy is copy}):
            yield f"{what} {_blocks(blocks)}"


def _standing_by(plan: Plan, name: str) -> list[int]:
    return sorted({b for s in plan.standbys if s.worker == name for b in s.blocks})


def same_assignment(old: Plan | None, new: Plan) -> bool:
    """Whether two Plans give the same parts to the same Workers, whatever they were decided for and are expected to do.

    How prompts are cut comes from measurements, no two of which are equal: all Sessions would replay for a row more or less.
    """
    if old is None or max(old.start_rows, new.start_rows) > CUT_OTHERWISE * min(old.start_rows, new.start_rows):
        return False
    return _assigned(old) == _assigned(replace(new, start_rows=old.start_rows))


def _assigned(plan: Plan) -> Plan:
    return replace(plan, epoch=1, follows=0, notes=(), objective="", predicted=None)


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
