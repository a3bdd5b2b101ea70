"""What measured choices change in a Plan: which experts are away from their owner, and copies in spare memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cluster.planner.budget import Load, Prices
from cluster.planner.chosen import enough
from cluster.planner.copies import with_copies, without_copies
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware
from cluster.planner.predict import predict
from cluster.planner.site import sites
from swarm.plan import Plan

WORTH = 1.25
"""Two experts change places where one is chosen so many times as often as the other; less would flutter."""
Names = Mapping[int, int]
"""By expert that comes home to its Block's owner, the one that leaves in its place."""


def refine(plan: Plan, hardware: Hardware, load: Load, counts: Mapping[int, Sequence[int]]) -> Plan:
    """A Plan in the light of what routers chose; itself where nothing was counted. Its Stages stay as they are.

    What it predicts is by these choices, too.

    Of experts that must be away, the owner keeps those chosen most, or least where a holder is so much faster.

    Args:
        plan: as `make_plan` decided it, for this hardware and load; with the copies of the Plan before where it kept them.
        counts: by Block, how often each of its experts was chosen.
    """
    costs = Costs(Prices.of(plan.model, load, len(plan.routes)), hardware)
    for route, block, away in _away(plan, counts):
        names = (_hot_home(away, counts[block]), _hot_away(away, counts[block]))
        ways = [plan, *(_renamed(plan, route, block, new) for new in names)]
        best = min(ways, key=lambda way: _row_s(way, route, costs, load, {block: counts[block]}))
        if best is not plan:
            plan = replace(best, notes=(*best.notes, f"block {block}: other experts are elsewhere now, by what was chosen so far"))
    plan = with_copies(plan, hardware, load, counts)
    known = any(enough(chosen, plan.model.config.top_k) for chosen in counts.values())
    return replace(plan, predicted=predict(plan, hardware, load, counts)) if known else plan


def _away(plan: Plan, counts: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, int, list[int]]]:
    """(Route, Block, experts that are away) of those whose experts can change places."""
    for block, chosen in counts.items():
        shards = [s for s in plan.shards if s.block == block and not s.copy]
        if shards and len({s.route for s in shards}) == 1 and enough(chosen, plan.model.config.top_k):
            yield shards[0].route, block, [e for s in shards for e in s.experts]


def _hot_home(away: Sequence[int], counts: Sequence[int]) -> Names:
    comes = sorted(away, key=lambda e: (-counts[e], e))
    leaves = sorted(set(range(len(counts))) - set(away), key=lambda e: (counts[e], e))
    return {home: other for home, other in zip(comes, leaves, strict=False) if counts[home] > WORTH * counts[other]}


def _hot_away(away: Sequence[int], counts: Sequence[int]) -> Names:
    here = sorted(set(range(len(counts))) - set(away))
    return {home: other for other, home in _hot_home(here, counts).items()}


def _renamed(plan: Plan, route: int, block: int, names: Names) -> Plan:
    if not names:
        return plan
    bare = without_copies(plan, {block})
    shards = tuple(
        replace(s, experts=tuple(sorted(names.get(e, e) for e in s.experts))) if (s.route, s.block) == (route, block) else s
        for s in bare.shards
    )
    return replace(bare, shards=shards)


def _row_s(plan: Plan, route: int, costs: Costs, load: Load, counts: Mapping[int, Sequence[int]]) -> float:
    """What the experts of a row take in the one Block that is counted, without copies."""
    return next(site.seconds(costs, ()) for site in sites(plan, costs, load, counts) if site.route == route)
