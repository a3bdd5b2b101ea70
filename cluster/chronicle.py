"""The Coordinator's log: each Plan that comes into force, and what the swarm waits for."""

from __future__ import annotations

import logging

from cluster.coordinator import Coordinator
from swarm.plan import Plan

_LOG = logging.getLogger(__name__)


async def tell(coordinator: Coordinator) -> None:
    """Write down what is published, each thing once; until cancelled."""
    epoch, said = 0, ""
    async for published in coordinator.watch():
        plan, what = published.plan, published.waiting.partition(":")[0]
        if plan is not None and plan.epoch != epoch:
            epoch, said = plan.epoch, ""
            _LOG.info("epoch %d is in force: %s", plan.epoch, summary(plan))
        elif plan is None and what != said:  # behind the colon is how far it is
            epoch, said = 0, what
            _LOG.info("no plan is in force: the swarm %s", published.waiting)


def summary(plan: Plan) -> str:
    """A Plan in one line."""
    routes = " | ".join(", ".join(f"{s.worker} blocks {s.first}-{s.end - 1}" for s in route.stages) for route in plan.routes)
    shards = f"; {len(plan.shards)} expert shards" if plan.shards else ""
    return f"{plan.model.name} in {plan.model.kept_as}, {routes}{shards}"
