"""What memory bandwidth alone allows: a token needs every byte that its Stages read for it, at the rate that each one reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from swarm.plan import Plan
from swarm.reads import row_bytes


def least_s(plan: Plan, workers: Collection[str], length: int, bandwidths: Mapping[str, float]) -> float:
    """Seconds for one token of one stream: of each Stage the weights and the KV that a row reads, over its bandwidth.

    Experts that other Workers hold are read at the same time as those here, and do not count.

    Args:
        workers: those whose Stages it passes.
        length: positions that a row looks back on.
        bandwidths: measured bytes/s by Worker; has all of `workers`.
    """
    return sum(_stage_bytes(plan, name, length) / bandwidths[name] for name in workers)


def _stage_bytes(plan: Plan, name: str, length: int) -> int:
    route = plan.route_of(name)
    stage = plan.stage_of(name, route) if route is not None else None
    if route is None or stage is None:
        return 0
    return row_bytes(plan, name, route) + len(stage.blocks) * plan.model.sizes.kv(length)
