"""Copies of hot experts in spare memory, where a Block's owner and the copy's holder read chosen ones side by side.

What Workers counted says how often a row's experts would be read by the owner alone, one after the other; where asking costs
more than that, nothing is copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf

from cluster.planner.budget import Load, Prices, budget_of
from cluster.planner.chosen import enough
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware
from cluster.planner.site import Site, sites
from swarm.plan import ExpertShard, Plan

LEAST_S = 1e-6
"""A copy saves at least so many seconds a token, or is not worth loading."""
STAYS = 1.05
"""Other copies must save so many times what those that are there save; less would move them to and fro."""


@dataclass
class Copies:
    """Experts copied so far, the hottest of each Block first, by whom, and the memory that is left."""

    room: dict[str, int]
    numbers: dict[tuple[int, int], tuple[Site, int]] = field(default_factory=dict)
    saved_s: float = 0.0

    def takes(self, site: Site, expert_bytes: int) -> bool:
        """Whether one more copy may go there: memory is left, and the Block has no other holder."""
        other = self.numbers.get(site.key)
        return self.room[site.name] >= expert_bytes and (other is None or other[0] is site)

    def add(self, site: Site, saved_s: float, expert_bytes: int) -> int:
        """Copy the next expert; returns how many of the Block are copied."""
        number = self.numbers.get(site.key, (site, 0))[1] + 1
        self.numbers[site.key] = site, number
        self.room[site.name] -= expert_bytes
        self.saved_s += saved_s
        return number

    def shards(self) -> Iterator[ExpertShard]:
        for (route, block), (site, number) in sorted(self.numbers.items(), key=lambda item: item[0]):
            yield ExpertShard(site.name, block, tuple(sorted(site.hottest(number))), route, copy=True)


def with_copies(plan: Plan, hardware: Hardware, load: Load, counts: Mapping[int, Sequence[int]]) -> Plan:
    """The Plan with copies of experts in its Workers' spare memory, most seconds saved a byte first.

    Copies that it has already stay, where others would save hardly more, and where too little is known of their Block.
    All new copies of a Block are on one Worker. What is in a standby copy costs no memory. `predicted` stays what it is:
    `refine` makes it anew.

    Args:
        hardware: what the Plan was made for.
        counts: by Block, how often each of its experts was chosen; Blocks of which too little is known get no new copies.
    """
    top_k = plan.model.config.top_k
    known = {block for block, chosen in counts.items() if enough(chosen, top_k)}
    old = [s for s in plan.shards if s.copy and s.block in known]
    bare = without_copies(plan, known)
    costs = Costs(Prices.of(plan.model, load, len(plan.routes)), hardware)
    there = list(sites(bare, costs, load, counts))
    copies = _filled(there, costs, bare)
    saved_s = _saved_s(there, old, costs)
    if saved_s > LEAST_S and copies.saved_s <= STAYS * saved_s:
        return replace(plan, notes=(*plan.notes, _note(sum(len(s.experts) for s in old), saved_s)))
    if not copies.numbers:
        return bare
    made = replace(bare, shards=(*bare.shards, *copies.shards()))
    notes = (*bare.notes, _note(sum(number for _, number in copies.numbers.values()), copies.saved_s))
    return replace(_budgeted(made, {site.name for site, _ in copies.numbers.values()}), notes=notes)


def without_copies(plan: Plan, blocks: Collection[int]) -> Plan:
    """The Plan without the copies of experts of these Blocks."""
    gone = [s for s in plan.shards if s.copy and s.block in blocks]
    if not gone:
        return plan
    bare = replace(plan, shards=tuple(s for s in plan.shards if s not in gone))
    return _budgeted(bare, {s.worker for s in gone})


def _filled(there: Sequence[Site], costs: Costs, plan: Plan) -> Copies:
    """Copies added greedily by seconds a byte; of equal gain, on the owner's own Rig."""
    copies = Copies({w.name: w.memory_bytes - max(w.planned_bytes, budget_of(plan, w.name).total_bytes) for w in plan.workers})
    free = {(s.worker, b) for s in plan.standbys for b in s.blocks}

    def size(site: Site) -> int:
        return 0 if (site.name, site.block) in free else costs.prices.expert

    def entry(place: int, before: int) -> tuple[float, bool, int, int, float]:
        site = there[place]
        gain = 0.0
        if before < len(site.hot) and copies.takes(site, size(site)):
            gain = site.seconds(costs, site.hottest(before)) - site.seconds(costs, site.hottest(before + 1))
        worth = gain if size(site) or gain <= LEAST_S else inf
        return -worth, site.holder.device.rig != site.owner.rig, place, before, gain

    heap = [entry(place, 0) for place in range(len(there))]
    heapify(heap)
    while heap:
        _, _, place, _, gain = heappop(heap)
        site = there[place]
        if gain > LEAST_S and copies.takes(site, size(site)):
            heappush(heap, entry(place, copies.add(site, gain, size(site))))
    return copies


def _saved_s(there: Sequence[Site], shards: Sequence[ExpertShard], costs: Costs) -> float:
    """What copies save that are there already."""
    found = {(site.route, site.block, site.name): site for site in there}
    pairs = [(found[s.route, s.block, s.worker], s.experts) for s in shards if (s.route, s.block, s.worker) in found]
    return sum(site.seconds(costs, ()) - site.seconds(costs, experts) for site, experts in pairs)


def _note(number: int, saved_s: float) -> str:
    return f"{number} copies of hot experts in spare memory: {saved_s * 1e3:.2f} ms a token less, by what was chosen so far"


def _budgeted(plan: Plan, names: set[str]) -> Plan:
    """The Plan with the weights of these Workers counted anew."""
    weights = {name: budget_of(plan, name).weights_bytes for name in names}
    return replace(plan, workers=tuple(replace(w, weights_bytes=weights.get(w.name, w.weights_bytes)) for w in plan.workers))
