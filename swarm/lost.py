"""A Worker that no longer answers, in words that name its rig and its Stage."""

from __future__ import annotations

from swarm.errors import Lost
from swarm.plan import Plan


def called(plan: Plan, name: str) -> str:
    """A Worker as people know it: `worker rig-b/cuda:0 (stage 1, blocks 4-7)`."""
    return f"worker {name} ({', '.join(_parts(plan, name)) or 'idle'})"


def lost(plan: Plan, name: str, why: str) -> Lost:
    """The error that says so.

    Args:
        why: for inside the message: what was seen of it last.
    """
    return Lost(f"{called(plan, name)} is gone ({why})", name)


def _parts(plan: Plan, name: str) -> list[str]:
    route = plan.route_of(name)
    if route is not None:
        stages = plan.routes[route].stages
        place, stage = next((p, s) for p, s in enumerate(stages) if s.worker == name)
        return [f"stage {place}", f"blocks {stage.first}-{stage.end - 1}"]
    blocks = sorted({s.block for s in plan.shards_of(name)})
    return [f"expert shards of {len(blocks)} blocks"] if blocks else []
