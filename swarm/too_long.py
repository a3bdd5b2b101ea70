"""What to do where a Session wants more positions than a Plan has for it."""

from __future__ import annotations

from swarm.plan import Plan


def remedy(plan: Plan, shorten: str) -> str:
    """Goes on behind what was wanted.

    Args:
        shorten: what to ask less with.
    """
    if plan.context >= plan.model.config.max_positions:
        return f"the model has {plan.context} a session at most: {shorten}"
    return f"the swarm has {plan.context} a session: {shorten}, or start the swarm with a larger --context"
