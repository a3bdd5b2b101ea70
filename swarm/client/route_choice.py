"""On which Route a Session goes: pure decisions, values in, values out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from swarm.plan import Plan, Route


def route_order(sessions: Sequence[int], lost: Collection[int], home: int | None, turn: int) -> list[int]:
    """All Routes, the one to try first at the front.

    Args:
        sessions: this client's other Sessions on each Route; every Route has the same share of all Sessions.
        lost: Routes on which a Worker was lost just now: they come last.
        home: the Route that holds something of the Session already; among equals it comes first.
        turn: where this client begins among equals, so that not all clients begin with the same one.
    """
    count = len(sessions)
    return sorted(range(count), key=lambda r: (r in lost, sessions[r], r != home, (r - turn) % count))


def home_of(old: Route | None, plan: Plan) -> int | None:
    """The Route of a Plan on which most Blocks are where an older Route had them, and with them a Session's KV; if any is."""
    kept = [_kept(old, route) for route in plan.routes] if old else [0]
    return kept.index(max(kept)) if max(kept) else None


def workers_of(route: Route) -> set[str]:
    """The Workers that have its Stages."""
    return {stage.worker for stage in route.stages}


def left_behind(old: Route | None, new: Route, plan: Plan) -> set[str]:
    """Workers of an older Route that serve another one than `new` now: what they hold of a Session, nobody will ask for."""
    serving = set().union(*(workers_of(route) for route in plan.routes))
    return workers_of(old) & serving - workers_of(new) if old else set()


def _kept(old: Route, new: Route) -> int:
    pairs = ((a, b) for a in old.stages for b in new.stages if a.worker == b.worker)
    return sum(len(set(a.blocks) & set(b.blocks)) for a, b in pairs)
