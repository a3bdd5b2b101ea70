"""What a Plan will do: one stream, many streams, the first token, and what everybody waits for. See docs/placement.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cluster.planner.budget import Load, Prices
from cluster.planner.costs import Away, Costs
from cluster.planner.counted import Counted
from cluster.planner.hardware import Hardware, Measured
from swarm.plan import WAY_ROUND, Plan, Prediction, Route

PROMPT_ROWS = 256
"""Of the prompt whose first token is predicted."""


@dataclass(frozen=True)
class Round:
    """One micro-batch of `rows` rows once around a Route.

    Args:
        busy_s: how long it keeps each Worker and each link, by what they are called; the largest is the bottleneck.
        around_s: from the client and back to it, with nobody in the way.
    """

    busy_s: Mapping[str, float]
    around_s: float

    @property
    def slowest(self) -> str:
        return max(self.busy_s, key=lambda name: self.busy_s[name])


def predict(plan: Plan, hardware: Hardware, load: Load, counts: Mapping[int, Sequence[int]] | None = None) -> Prediction:
    """Price a Plan. Its context is what KV is read for; `in_flight` of the Plan, or the best, of each Route.

    One stream is that of the fastest Route; a Plan of several says in its notes what each of them does.

    Args:
        counts: by Block, how often each of its experts was chosen; routing is taken as uniform where that says too little.
    """
    costs = Costs(Prices.of(plan.model, load), hardware)
    counted = Counted(plan, costs, load, counts or {})
    alone = min(alone_s(plan, r, costs, counted) for r in range(len(plan.routes)))
    in_flight = plan.in_flight or best_in_flight(plan, costs)
    many = [_rate(plan, r, costs, in_flight, counted) for r in range(len(plan.routes))]
    first = min(going_round(plan, r, costs, PROMPT_ROWS, False, counted, prompt=True).around_s for r in range(len(plan.routes)))
    slowest = min(range(len(many)), key=lambda r: many[r])
    return Prediction(first, 1 / alone, sum(many), _bottleneck(plan, slowest, costs, in_flight, counted))


def alone_s(plan: Plan, route: int, costs: Costs, counted: Counted | None = None) -> float:
    """Between two tokens of a Session that has a Route for itself."""
    return going_round(plan, route, costs, 1, False, counted).around_s


def objective_s(prediction: Prediction, load: Load) -> float:
    """What a Plan is chosen by: seconds between two tokens of a Session; less is better.

    latency: of one Session alone. throughput: of each, when all Sessions answer. balanced: the mean of both.
    """
    alone, many = 1 / prediction.tokens_per_s, load.sessions / prediction.total_tokens_per_s
    return {"latency": alone, "throughput": many, "balanced": (alone + many) / 2}[load.objective]


def best_in_flight(plan: Plan, costs: Costs) -> int:
    """How many micro-batches under way on each Route give most tokens a second; of equal ones the fewest."""
    counts = range(1, plan.sessions_a_route + 1)
    return max(counts, key=lambda n: (sum(_rate(plan, r, costs, n) for r in range(len(plan.routes))), -n))


def going_round(
    plan: Plan, route: int, costs: Costs, rows: float, many: bool, counted: Counted | None = None, prompt: bool = False
) -> Round:
    """One micro-batch around one Route.

    Args:
        counted: what Blocks take by what was chosen; None: every expert is chosen as often.
        many: others are under way too, so whoever has a Stage is busy when a shard of it is asked.
        prompt: the rows are a chunk of one prompt.
    """
    devices = {d.name: d for d in costs.hardware.devices}
    stages = plan.routes[route].stages
    own: defaultdict[str, float] = defaultdict(float)
    shards: defaultdict[str, float] = defaultdict(float)
    software = 0.0
    for stage in stages:
        owner, first, last = devices[stage.worker], stage is stages[0], stage is stages[-1]
        own[stage.worker] += costs.ends_s(owner, first, last, 1 if prompt else rows)
        software += costs.frame_s(owner)
        for block in stage.blocks:
            away = _away(plan, stage.worker, block, devices, many)
            if counted is None:
                time = costs.block_s(owner, away, rows, prompt)
            else:
                time = counted.block_s(route, block, owner, away, rows, prompt)
            own[stage.worker] += time.owner_s
            for holder, work_s in zip(away, time.away_s, strict=True):
                shards[holder.device.name] += work_s
    pairs = _pairs(plan.routes[route], devices)
    hops = sum(costs.hop_s(a, b, rows) for a, b in pairs) + costs.client_s(devices[stages[0].worker], devices[stages[-1].worker])
    busy = {name: own[name] + shards[name] for name in dict.fromkeys((*own, *shards))}
    links = {f"link {a.name} to {b.name}": costs.hop_busy_s(a, b, rows) for a, b in pairs}
    return Round(busy | links, sum(own.values()) + software + hops)


def _rate(plan: Plan, route: int, costs: Costs, in_flight: int, counted: Counted | None = None) -> float:
    """Tokens a second of all Sessions of a Route, with so many micro-batches under way."""
    sessions = plan.sessions / len(plan.routes)
    round_ = going_round(plan, route, costs, sessions / in_flight, True, counted)
    return sessions / max(in_flight * max(round_.busy_s.values()), round_.around_s)


def _bottleneck(plan: Plan, route: int, costs: Costs, in_flight: int, counted: Counted) -> str:
    sessions = plan.sessions / len(plan.routes)
    round_ = going_round(plan, route, costs, sessions / in_flight, True, counted)
    full = in_flight * round_.busy_s[round_.slowest] >= round_.around_s
    return round_.slowest if full else WAY_ROUND


def _away(plan: Plan, owner: str, block: int, devices: Mapping[str, Measured], many: bool) -> list[Away]:
    counts: defaultdict[str, int] = defaultdict(int)
    for worker in plan.remote_experts(owner, block).values():
        counts[worker] += 1
    return [Away(devices[w], n, many and plan.route_of(w) is not None) for w, n in counts.items()]


def _pairs(route: Route, devices: Mapping[str, Measured]) -> list[tuple[Measured, Measured]]:
    workers = [devices[s.worker] for s in route.stages]
    return list(pairwise(workers))
