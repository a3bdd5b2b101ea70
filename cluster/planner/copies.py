"""Copies of hot experts in spare memory, where a Block's owner and the copy's holder read two chosen ones side by side.

One row at a time: an owner that holds both experts of a row reads them one after the other. What Workers counted says
how often that is; where asking costs more than it saves, nothing is copied. See docs/placement.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf

from cluster.planner.budget import Load, Prices, budget_of
from cluster.planner.chosen import enough, group_chances
from cluster.planner.costs import Away, Costs
from cluster.planner.hardware import Hardware, Measured
from swarm.plan import ExpertShard, Plan

LEAST_S = 1e-6
"""A copy saves at least so many seconds a token, or is not worth loading."""


@dataclass(frozen=True)
class Site:
    """A Block of one Route, and one Worker that copies of its experts could go to.

    Args:
        hot: the counts of the experts that the owner holds and the holder does not, most chosen first.
        rest: those of experts that the owner holds and the holder already has for another Route.
        away: by Worker, the counts of the experts that the owner does not hold.
    """

    route: int
    block: int
    owner: Measured
    holder: Away
    hot: tuple[tuple[int, int], ...]
    rest: tuple[int, ...]
    away: tuple[tuple[Away, tuple[int, ...]], ...]

    @property
    def key(self) -> tuple[int, int]:
        return self.route, self.block

    @property
    def name(self) -> str:
        return self.holder.device.name

    def seconds(self, costs: Costs, copies: int) -> float:
        """What the experts of one row take on average, with the hottest so many copied."""
        counts = [count for _, count in self.hot]
        groups = ([*counts[copies:], *self.rest], counts[:copies], *(away for _, away in self.away))
        chances = group_chances(groups, costs.prices.sizes.config.top_k)
        return sum(chance * self._row_s(costs, chosen) for chosen, chance in chances)

    def _row_s(self, costs: Costs, chosen: Sequence[int]) -> float:
        """For a row that chose so many of each group."""
        only, both, *away = chosen
        asked = self._asks(only, both, away)
        return max((only + both - asked) * costs.expert_s(self.owner, 1), self._asked_s(costs, asked, away))

    def _asks(self, only: int, both: int, away: Sequence[int]) -> int:
        """How many copies the owner asks for: Workers share experts out by number, not by speed, and ask the fewest that will do.

        The rule of `swarm.model.spread`, for one row.
        """
        if only + both < 2:
            return 0
        there = sum(n for (whom, _), n in zip(self.away, away, strict=True) if whom.device.name == self.name)
        return min(range(both + 1), key=lambda n: (max(only + both - n, there + n, *away, 0), n))

    def _asked_s(self, costs: Costs, copies: int, away: Sequence[int]) -> float:
        """Until all answers are there; a holder that has shards of the Block, too, is asked for all at once."""
        asked = {self.name: (self.holder, copies)}
        for (whom, _), number in zip(self.away, away, strict=True):
            asked[whom.device.name] = whom, number + (copies if whom.device.name == self.name else 0)
        each = ((a, n, n * costs.expert_s(a.device, 1)) for a, n in asked.values() if n)
        return max((costs.asked_s(self.owner, a, 1, n, work_s) for a, n, work_s in each), default=0.0)


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
            experts = tuple(sorted(expert for expert, _ in site.hot[:number]))
            yield ExpertShard(site.name, block, experts, route, copy=True)


def with_copies(plan: Plan, hardware: Hardware, load: Load, counts: Mapping[int, Sequence[int]]) -> Plan:
    """The Plan with copies of experts in its Workers' spare memory, most seconds saved a byte first; without its old ones.

    All copies of a Block are on one Worker. What is in a standby copy already costs no memory. `predicted` stays what
    it is: a lower bound, with none of the copies.

    Args:
        hardware: what the Plan was made for.
        counts: by Block, how often each of its experts was chosen; Blocks of which too little is known get no copies.
    """
    bare = without_copies(plan)
    costs = Costs(Prices.of(plan.model, load, len(plan.routes)), hardware)
    room = {w.name: w.memory_bytes - max(w.planned_bytes, budget_of(bare, w.name).total_bytes) for w in bare.workers}
    copies = Copies(room)
    _fill(copies, list(_sites(bare, costs, load, counts)), costs, bare)
    if not copies.numbers:
        return bare
    made = replace(bare, shards=(*bare.shards, *copies.shards()))
    number = sum(n for _, n in copies.numbers.values())
    note = f"{number} copies of hot experts in spare memory: {copies.saved_s * 1e3:.2f} ms a token less, by what was chosen so far"
    return replace(_budgeted(made, {site.name for site, _ in copies.numbers.values()}), notes=(*bare.notes, note))


def _fill(copies: Copies, sites: Sequence[Site], costs: Costs, plan: Plan) -> None:
    """Add copies greedily by seconds a byte; of equal gain, on the owner's own Rig."""
    free = {(s.worker, b) for s in plan.standbys for b in s.blocks}

    def entry(place: int, before: int) -> tuple[float, bool, int, int, float]:
        site = sites[place]
        gain = site.seconds(costs, before) - site.seconds(costs, before + 1) if before < len(site.hot) else 0.0
        worth = inf if gain > LEAST_S and (site.name, site.block) in free else gain
        return -worth, site.holder.device.rig != site.owner.rig, place, before, gain

    heap = [entry(place, 0) for place in range(len(sites))]
    heapify(heap)
    while heap:
        _, _, place, _, gain = heappop(heap)
        site = sites[place]
        size = 0 if (site.name, site.block) in free else costs.prices.expert
        if gain > LEAST_S and copies.takes(site, size):
            heappush(heap, entry(place, copies.add(site, gain, size)))


def _sites(plan: Plan, costs: Costs, load: Load, counts: Mapping[int, Sequence[int]]) -> Iterator[Site]:
    devices = {d.name: d for d in costs.hardware.devices}
    own = {(s.worker, b) for r in plan.routes for s in r.stages for b in s.blocks}
    waits = load.objective != "latency" and load.sessions > 1
    known = {
        w.name: Away(devices[w.name], 0, waits and plan.route_of(w.name) is not None) for w in plan.workers if w.name in devices
    }
    for route, way in enumerate(plan.routes):
        for owner, block in ((s.worker, b) for s in way.stages for b in s.blocks):
            if not enough(counts.get(block, ()), costs.prices.sizes.config.top_k):
                continue
            for name, holder in known.items():
                if (name, block) not in own:
                    yield _site(plan, route, block, owner, holder, known, counts[block])


def _site(plan: Plan, route: int, block: int, owner: str, holder: Away, known: Mapping[str, Away], counts: Sequence[int]) -> Site:
    remote = plan.remote_experts(owner, block)
    taken = {e for s in plan.shards if (s.worker, s.block) == (holder.device.name, block) for e in s.experts}
    local = [e for e in range(len(counts)) if e not in remote]
    hot = sorted((e for e in local if e not in taken), key=lambda e: (-counts[e], e))
    names = dict.fromkeys(remote.values())
    return Site(
        route=route,
        block=block,
        owner=known[owner].device,
        holder=holder,
        hot=tuple((e, counts[e]) for e in hot),
        rest=tuple(counts[e] for e in local if e in taken),
        away=tuple((known[name], tuple(counts[e] for e, at in remote.items() if at == name)) for name in names),
    )


def without_copies(plan: Plan) -> Plan:
    """The Plan as it was before `with_copies`."""
    if not any(s.copy for s in plan.shards):
        return plan
    bare = replace(plan, shards=tuple(s for s in plan.shards if not s.copy))
    return _budgeted(bare, {s.worker for s in plan.shards if s.copy})


def _budgeted(plan: Plan, names: set[str]) -> Plan:
    """The Plan with the weights of these Workers counted anew."""
    weights = {name: budget_of(plan, name).weights_bytes for name in names}
    return replace(plan, workers=tuple(replace(w, weights_bytes=weights.get(w.name, w.weights_bytes)) for w in plan.workers))
