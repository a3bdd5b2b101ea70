"""What measured choices change in a Plan: owners keep the experts that are chosen most, and spare memory has copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cluster.planner.budget import Load
from cluster.planner.chosen import enough
from cluster.planner.copies import with_copies, without_copies
from cluster.planner.hardware import Hardware
from swarm.plan import ExpertShard, Plan

WORTH = 1.25
"""An expert comes home when it is chosen so many times as often as the one that leaves for it; less would flutter."""


def refine(plan: Plan, hardware: Hardware, load: Load, counts: Mapping[int, Sequence[int]]) -> Plan:
    """A Plan in the light of what routers chose; itself where nothing was counted. Its Stages stay as they are.

    Args:
        plan: as `make_plan` decided it, for this hardware and load; with the copies of the Plan before where it kept them.
        counts: by Block, how often each of its experts was chosen.
    """
    return with_copies(hot_first(plan, counts), hardware, load, counts)


def hot_first(plan: Plan, counts: Mapping[int, Sequence[int]]) -> Plan:
    """Owners keep the most chosen experts: a renaming of those that are away, so that memory stays the same.

    Only for Blocks of which enough is known and whose holders hold experts of them for one Route; these Blocks lose their
    copies, which were of what owners held. The caller counts what moves.
    """
    names: dict[tuple[int, int], dict[int, int]] = {}
    for block, chosen in counts.items():
        shards = [s for s in plan.shards if s.block == block and not s.copy]
        if shards and len({s.route for s in shards}) == 1 and enough(chosen, plan.model.config.top_k):
            names[shards[0].route, block] = _renamed([e for s in shards for e in s.experts], chosen)
    if not any(names.values()):
        return plan
    bare = without_copies(plan, {block for (_, block), new in names.items() if new})
    return replace(bare, shards=tuple(_named(s, names.get((s.route, s.block), {})) for s in bare.shards))


def _renamed(away: Sequence[int], counts: Sequence[int]) -> dict[int, int]:
    """By expert that comes home, the one that leaves in its place."""
    hottest = sorted(away, key=lambda e: (-counts[e], e))
    coldest = sorted(set(range(len(counts))) - set(away), key=lambda e: (counts[e], e))
    pairs = zip(hottest, coldest, strict=False)
    return {home: leaves for home, leaves in pairs if counts[home] > WORTH * counts[leaves]}


def _named(shard: ExpertShard, names: Mapping[int, int]) -> ExpertShard:
    return shard if shard.copy else replace(shard, experts=tuple(sorted(names.get(e, e) for e in shard.experts)))
