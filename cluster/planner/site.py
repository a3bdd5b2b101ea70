"""A place where copies of a Block's experts could be, and what they would save there.

One row at a time: an owner that holds several experts of a row reads them one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.planner.budget import Load
from cluster.planner.chosen import enough, group_chances
from cluster.planner.costs import Away, Costs
from cluster.planner.hardware import Measured
from swarm.plan import Plan


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

    def hottest(self, number: int) -> tuple[int, ...]:
        """The ids of the most chosen experts that could be copied here."""
        return tuple(expert for expert, _ in self.hot[:number])

    def seconds(self, costs: Costs, copied: Collection[int]) -> float:
        """What the experts of one row take on average with these copied."""
        only = [count for expert, count in self.hot if expert not in copied]
        both = [count for expert, count in self.hot if expert in copied]
        groups = ([*only, *self.rest], both, *(away for _, away in self.away))
        chances = group_chances(groups, costs.prices.sizes.config.top_k)
        return sum(chance * self._row_s(costs, chosen) for chosen, chance in chances)

    def _row_s(self, costs: Costs, chosen: Sequence[int]) -> float:
        """For a row that chose so many of each group."""
        only, both, *away = chosen
        asked = self.asks(only, both, away)
        return max((only + both - asked) * costs.expert_s(self.owner, 1), self._asked_s(costs, asked, away))

    def asks(self, only: int, both: int, away: Sequence[int]) -> int:
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


def sites(plan: Plan, costs: Costs, load: Load, counts: Mapping[int, Sequence[int]]) -> Iterator[Site]:
    """All of a Plan: each Block of which enough is known, with each Worker that has no Stage with it."""
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
