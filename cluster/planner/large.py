"""Swarms beyond what an exact search can do: a good Choice, and a bound that no Choice can beat.

Whole Blocks first: relaxed, put in order, improved. Where those do not fit, or might be read quicker side by side, an integer
program gives each Block of the chosen Stages its kind. The Choice in force is always one of the candidates, so one more Device
or a faster link never makes it worse. Nothing here looks at a clock: the same input gives the same Choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np

from cluster.planner.budget import Load
from cluster.planner.choice import Choice, Kind, StageChoice
from cluster.planner.clock import Beat, Clock
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware
from cluster.planner.large_bound import Bound
from cluster.planner.large_owners import Owners
from cluster.planner.large_route import Aim, RouteSearch, Stages
from cluster.planner.large_routes import TwoRoutes
from cluster.planner.large_shards import MANY_OWNERS, ShardProgram
from cluster.planner.lay_out import lay_out
from cluster.planner.predict import best_in_flight, objective_s, predict
from cluster.planner.tables import Table
from swarm.errors import PlacementError
from swarm.plan import Model

IN_FLIGHT = 6
"""Numbers of micro-batches in flight that are tried, at most; all where there are as few."""
FEW = 3
"""The same for two Routes, each of which is searched for more than once."""
LESS = 2
"""So many of the slowest Stages are left out in a second attempt with experts elsewhere, which then hold what those held."""
PROGRAMS = 3
"""How many sets of owners are filled by an integer program where whole Blocks do not do."""


def search(model: Model, hardware: Hardware, load: Load, previous: Choice | None) -> tuple[Choice, float] | None:
    """A good Choice, and what no Choice can do better than, in seconds of the objective; None where none was found.

    Args:
        previous: the Choice in force; what is returned is no worse, where it still can be laid out.
    """
    choices = _Choices(model, hardware, load)
    found = [priced for choice in choices.all(previous) if (priced := choices.priced(choice))]
    best = min(found, key=choices.rank, default=None)
    return (best, min(choices.bound(best.seconds), best.seconds)) if best else None


def better(choice: Choice | None, other: Choice, model: Model, hardware: Hardware, load: Load) -> Choice | None:
    """The better of two Choices; the first where the other cannot be laid out here or is no better."""
    choices = _Choices(model, hardware, load)
    priced = choices.priced(other)
    if priced is None or (choice and choices.rank(choice) <= choices.rank(priced)):
        return choice
    return replace(priced, at_least=choice.at_least if choice else min(choices.bound(priced.seconds), priced.seconds))


@dataclass(frozen=True)
class _Choices:
    """Everything that is worth trying for one swarm."""

    model: Model
    hardware: Hardware
    load: Load

    @cached_property
    def table(self) -> Table:
        return Table.of(self.model, self.hardware, self.load)

    @cached_property
    def route(self) -> RouteSearch:
        return RouteSearch.over(self.table, in_flight(self.table))

    def all(self, previous: Choice | None) -> Iterator[Choice]:
        """What is in force, whole Blocks on one Route or two, and ExpertShards."""
        if previous:
            yield previous
        stages = self.route.best()
        orders = [tuple(d for d, _ in stages)] if stages else []
        if stages and not self.load.standby:
            whole = self._whole([stages], self.route.clock)
            yield whole
            yield from self._shards(self._fewer(orders[0]), whole.in_flight)
        else:
            orders += Owners(self.route, Aim(self._beat(self.table.costs.prices.sessions), np.inf)).orders()
            yield from islice(self._shards(orders, self.table.costs.prices.sessions), PROGRAMS)
        yield from self._two()

    def _fewer(self, order: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The Stages of a Route, and without those of the slowest Devices; of too many for an integer program the quickest."""
        quickest = sorted(order, key=lambda d: (self.route.clock.alone.block[d], d))
        sizes = (len(order), len(order) - LESS) if len(order) <= MANY_OWNERS else (MANY_OWNERS,)
        return [tuple(d for d in order if d in quickest[:size]) for size in sizes if size > 0]

    def priced(self, choice: Choice) -> Choice | None:
        """With its seconds, as `predict` has them; None where it cannot be laid out or does not fit."""
        names = set(self.table.names)
        if not {s.worker for route in choice.routes for s in route} <= names or not _others(choice) <= names:
            return None
        try:
            plan = lay_out(choice, self.model, self.hardware, self.load, 1, None)
            plan.check()
        except PlacementError:
            return None
        timed = replace(plan, in_flight=best_in_flight(plan, Costs(self.table.costs.prices, self.hardware)))
        return replace(choice, in_flight=timed.in_flight, seconds=objective_s(predict(timed, self.hardware, self.load), self.load))

    def rank(self, choice: Choice) -> tuple[int, float]:
        """Of two the better is less: more Devices where all are to be used, then fewer seconds."""
        used = {s.worker for route in choice.routes for s in route} | _others(choice)
        return (-len(used) if self.load.spread else 0, choice.seconds)

    def bound(self, found_s: float) -> float:
        """What no Choice can do better than."""
        tables = [self.table, *([Table.of(self.model, self.hardware, self.load, 2)] if self._may_have_two() else [])]
        return min(Bound(table, found_s).seconds() for table in tables)

    def _beat(self, in_flight: int) -> Beat:
        """The one with the most in flight, up to so many."""
        return [beat for beat in self.route.clock.beats if beat.in_flight <= in_flight][-1]

    def _whole(self, routes: Sequence[Stages], clock: Clock) -> Choice:
        seconds, in_flight = clock.price(routes)
        names = clock.table.names
        return Choice(tuple(tuple(StageChoice(names[d], ((Kind(), n),)) for d, n in r) for r in routes), in_flight, seconds)

    def _shards(self, orders: Sequence[tuple[int, ...]], in_flight: int) -> Iterator[Choice]:
        for owners in dict.fromkeys(orders):
            choice = ShardProgram(self.route.clock, owners, self._beat(in_flight)).solve()
            if choice:
                yield choice

    def _two(self) -> Iterator[Choice]:
        if self._may_have_two():
            table = Table.of(self.model, self.hardware, self.load, 2)
            routes = TwoRoutes(table, tuple(in_flight(table, FEW))).best()
            if routes:
                yield self._whole(routes, Clock.of(table))

    def _may_have_two(self) -> bool:
        return self.load.sessions > 1 and not self.load.standby and self.load.objective != "latency"


def in_flight(table: Table, most: int = IN_FLIGHT) -> list[int]:
    """The numbers of micro-batches in flight that are worth trying for a table's Routes."""
    return sorted({round(n) for n in np.geomspace(1, table.costs.prices.sessions, most).tolist()})


def _others(choice: Choice) -> set[str]:
    """Workers that hold experts or copies for others."""
    kinds = [kind for route in choice.routes for stage in route for kind, _ in stage.kinds]
    return {w for kind in kinds for w, _ in kind.away} | {kind.standby for kind in kinds if kind.standby}
