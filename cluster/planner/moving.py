"""Whether a better Plan pays for the bytes that its Workers must load first.

A Plan is worth the time that its Sessions take for the tokens of a horizon, and the time until its slowest loader is ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, isinf

from cluster.planner.between import Between
from cluster.planner.budget import Load, Prices
from cluster.planner.clock import Clock
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware
from cluster.planner.held import Held
from cluster.planner.lay_out import finished, lay_out
from cluster.planner.predict import best_in_flight, objective_s
from cluster.planner.tables import Table
from swarm.errors import gib
from swarm.plan import Model, Plan

HORIZON_S = 3600.0
"""How long a Plan is expected to serve: what it brings in an hour of steady answering must pay for the move."""
NEAR = 1e-3
"""Plans that differ by less than this share are as good as each other: the one that moves least is taken."""


def moved_bytes(previous: Plan | None, plan: Plan) -> dict[str, int]:
    """Weights that each Worker of a Plan must load beside what it holds under the previous one; in bytes."""
    before = Held.by(previous, plan.model)
    parts = Held.by(plan, plan.model).parts
    return {worker.name: before.missing_bytes(worker.name, parts.get(worker.name, ())) for worker in plan.workers}


def moving_s(previous: Plan | None, plan: Plan, hardware: Hardware) -> float:
    """Seconds until every Worker has what it lacks: they load at the same time, each at its own rate."""
    moved = moved_bytes(previous, plan)
    rates = {d.name: d.fetch_bytes_per_s for d in hardware.devices}
    return max(num_bytes / rates[name] for name, num_bytes in moved.items())


def settle(
    previous: Plan | None, fresh: Plan, model: Model, hardware: Hardware, load: Load, epoch: int, horizon_s: float = HORIZON_S
) -> Plan:
    """The Plan that is worth most: the previous one as it is, the fresh one, or one between them.

    Args:
        previous: the Plan in force; None: there is none, and the fresh one is taken.
        fresh: the optimum if nothing had to move; its Blocks may have any names.
        horizon_s: how long it will serve; infinite: moving costs nothing.

    Returns:
        A Plan of that epoch; its last note says what moves, or that nothing does.
    """
    if previous is None or not Held.by(previous, model).parts:
        return replace(fresh, epoch=epoch)
    stakes = _Stakes(previous, fresh, hardware, load, horizon_s)
    kept = keep(previous, fresh, hardware, load, epoch)
    between = _between(previous, fresh, model, hardware, load, epoch, stakes)
    best = stakes.best([*([kept] if kept else []), replace(fresh, epoch=epoch), *between])
    return replace(best, notes=(*best.notes, _note(previous, best, kept, stakes)))


def keep(previous: Plan, fresh: Plan, hardware: Hardware, load: Load, epoch: int) -> Plan | None:
    """The previous assignment under this load; None where it does not hold what the fresh Plan does, or not all is there."""
    names = {d.name for d in hardware.devices}
    plan = replace(
        fresh,
        epoch=epoch,
        workers=previous.workers,
        routes=previous.routes,
        shards=previous.shards,
        standbys=previous.standbys if load.standby else (),
        notes=(),
    )
    plan = replace(plan, workers=tuple(w for w in plan.workers if w.name in Held.by(plan, plan.model).parts))
    enough = len(plan.workers) >= len(fresh.workers) or not load.spread
    if not enough or not {w.name for w in plan.workers} <= names or load.sessions < len(plan.routes):
        return None
    plan = _timed(plan, hardware, load)
    fits = all(w.planned_bytes <= w.memory_bytes for w in plan.workers)
    return plan if fits and (_stood_by(plan) or not load.standby) else None


def _timed(plan: Plan, hardware: Hardware, load: Load) -> Plan:
    costs = Costs(Prices.of(plan.model, load), hardware)
    return finished(replace(plan, in_flight=best_in_flight(plan, costs)), hardware, load)


def _stood_by(plan: Plan) -> bool:
    """Whether every Block has a copy on another Rig than those that serve it."""
    rigs = {w.name: w.rig for w in plan.workers}
    serving = {(b, rigs[s.worker]) for r in plan.routes for s in r.stages for b in s.blocks}
    serving |= {(s.block, rigs[s.worker]) for s in plan.shards if not s.copy}
    copies = {(b, rigs[s.worker]) for s in plan.standbys for b in s.blocks}
    return {b for b, _ in copies - serving} == set(range(plan.model.config.num_blocks))


@dataclass(frozen=True)
class _Stakes:
    """What is to be gained and what it costs."""

    previous: Plan
    fresh: Plan
    hardware: Hardware
    load: Load
    horizon_s: float

    def seconds(self, plan: Plan) -> float:
        """Between two tokens, see `objective_s`."""
        assert plan.predicted, "a laid out Plan has a prediction"
        return objective_s(plan.predicted, self.load)

    @property
    def a_second(self) -> float:
        """What a second of loading costs, in seconds of the objective: the tokens of a horizon share it."""
        return self.seconds(self.fresh) / self.horizon_s

    def worth(self, plan: Plan) -> float:
        """Seconds a token, with the plan's share of the time to load it; less is better."""
        moving = 0.0 if isinf(self.horizon_s) else moving_s(self.previous, plan, self.hardware)
        return self.seconds(plan) + self.a_second * moving

    def best(self, plans: Sequence[Plan]) -> Plan:
        """Of those that are as good as the best, the one that moves least; of those, the first."""
        worths = [self.worth(plan) for plan in plans]
        near = min(worths) * (1 + (1e-9 if isinf(self.horizon_s) else NEAR))
        good = [plan for plan, worth in zip(plans, worths, strict=True) if worth <= near]
        return min(good, key=lambda plan: sum(moved_bytes(self.previous, plan).values()))


def _between(
    previous: Plan, fresh: Plan, model: Model, hardware: Hardware, load: Load, epoch: int, stakes: _Stakes
) -> Iterator[Plan]:
    if load.spread:
        return
    clock = Clock.of(Table.of(model, hardware, load, len(fresh.routes)), _few(fresh))
    before = Held.by(previous, model)
    for choice in Between(clock, before, stakes.a_second).choices(previous, fresh):
        yield _timed(lay_out(choice, model, hardware, load, epoch, previous), hardware, load)


def _few(fresh: Plan) -> list[int]:
    return sorted({1, fresh.in_flight or 1, fresh.sessions_a_route})


def _note(previous: Plan, best: Plan, kept: Plan | None, stakes: _Stakes) -> str:
    """What moves and when it pays back, or why nothing does."""
    moved = sum(moved_bytes(previous, best).values())
    if not moved:
        would = sum(moved_bytes(previous, stakes.fresh).values())
        more = stakes.seconds(best) / stakes.seconds(stakes.fresh) - 1
        why = f": {more:.1%} more tokens/s would not pay for moving {gib(would)}" if would and more > 0 else ""
        return f"stays as it is{why}"
    gain = 1 - stakes.seconds(best) / stakes.seconds(kept) if kept else inf
    pays = f"; pays back in {moving_s(previous, best, stakes.hardware) / gain:.0f} s" if kept and gain > 0 else ""
    return f"moves {gib(moved)}: {_what_moves(previous, best)}{pays}"


def _what_moves(previous: Plan, plan: Plan) -> str:
    before, now = Held.by(previous, plan.model), Held.by(plan, plan.model)
    words = []
    for worker in plan.workers:
        new = now.of(worker.name) - before.of(worker.name)
        blocks = sorted({b for kind, b, _ in new if kind in ("core", "expert")})
        cores = {b for kind, b, _ in new if kind == "core"}
        if new:
            what = f"{'' if cores else 'experts of '}{_runs(blocks)}" if blocks else "an end of the model"
            words.append(f"{what} to {worker.rig}/{worker.device}")
    return ", ".join(words)


def _runs(blocks: Sequence[int]) -> str:
    """`block 3`, `blocks 0-11`, `blocks 1, 4, 7-9`."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][1] + 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    return f"block{'s' if len(blocks) > 1 else ''} {', '.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)}"
