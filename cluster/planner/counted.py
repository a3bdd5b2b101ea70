"""What Blocks take where Workers counted what their routers choose: skewed choices touch fewer experts, and copies share them out.

Blocks of which too little is known are priced as if every expert were chosen as often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from cluster.planner.budget import Load
from cluster.planner.chosen import enough
from cluster.planner.costs import Away, BlockTime, Costs
from cluster.planner.hardware import Measured
from cluster.planner.site import Site, sites
from swarm.plan import Plan


@dataclass(frozen=True)
class Counted:
    """The Blocks of one Plan.

    Args:
        counts: by Block, how often each of its experts was chosen.
    """

    plan: Plan
    costs: Costs
    load: Load
    counts: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def block_s(self, route: int, block: int, owner: Measured, away: Sequence[Away], rows: float, prompt: bool) -> BlockTime:
        """As `Costs.block_s`, by what was chosen."""
        chosen = self.counts.get(block, ())
        even = self.costs.block_s(owner, away, rows, prompt)
        if not enough(chosen, self.costs.prices.sizes.config.top_k):
            return even
        core = self.costs.prompt_core_s(owner, rows) if prompt else self.costs.core_s(owner, rows)
        if rows > 1:
            return self._many_s(owner, away, rows, core, self._held(owner.name, block, chosen))
        site = self._site(route, block)
        return BlockTime(core + site.seconds(self.costs, self._copied(owner.name, block)), even.away_s) if site else even

    def touched(self, counts: Sequence[int], chosen: Sequence[int], rows: float) -> float:
        """Distinct experts with these counts, of all `chosen`, that so many rows choose on average; each row by itself."""
        shares = (min(1.0, self.costs.prices.sizes.config.top_k * n / sum(chosen)) for n in counts)
        missed: float = sum((1.0 - share) ** rows for share in shares)
        return len(counts) - missed

    def _held(self, owner: str, block: int, chosen: Sequence[int]) -> dict[str, list[int]]:
        """By Worker, the counts of the experts that it answers for where many rows ask: copies rest."""
        remote = self.plan.remote_experts(owner, block)
        held: dict[str, list[int]] = {owner: []}
        for expert, count in enumerate(chosen):
            held.setdefault(remote.get(expert, owner), []).append(count)
        return held

    def _many_s(self, owner: Measured, away: Sequence[Away], rows: float, core: float, held: Mapping[str, list[int]]) -> BlockTime:
        chosen = [count for counts in held.values() for count in counts]
        pairs = rows * self.costs.prices.sizes.config.top_k
        touched = {name: self.touched(counts, chosen, rows) for name, counts in held.items()}
        work = tuple(touched[a.device.name] * self.costs.expert_s(a.device, rows) for a in away)
        answers = [pairs * sum(held[a.device.name]) / sum(chosen) for a in away]
        asked = (self.costs.asked_s(owner, a, rows, n, s) for a, n, s in zip(away, answers, work, strict=True))
        return BlockTime(core + max(touched[owner.name] * self.costs.expert_s(owner, rows), *asked, 0.0), work)

    def _copied(self, owner: str, block: int) -> frozenset[int]:
        return frozenset(self.plan.copied_experts(owner, block))

    def _site(self, route: int, block: int) -> Site | None:
        """Where the copies of a Block are; where it has none, any Worker will do."""
        copies = {s.worker for s in self.plan.shards if s.copy and (s.route, s.block) == (route, block)}
        known = [site for site in self._sites if site.key == (route, block)]
        return next((site for site in known if site.name in copies), known[0] if known else None)

    @cached_property
    def _sites(self) -> list[Site]:
        """As if there were no copies: `Site.seconds` is told of them."""
        bare = tuple(s for s in self.plan.shards if not s.copy)
        return list(sites(replace(self.plan, shards=bare), self.costs, self.load, self.counts))
