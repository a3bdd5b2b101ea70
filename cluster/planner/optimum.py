"""The optimum of a home's swarm over one Route or two, and over which Devices must be used.

Two Routes share no Worker: the Devices are parted between them. Every parting that could be best is solved on up to four
Devices, else the `exact_pair.PARTINGS` most promising. A Block's experts are on its owner and at most two others where there are
more than four Devices (`Kinds.of`). `Choice.at_least` bounds all other limits: no such Plan takes less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np

from cluster.planner.budget import Load, Prices
from cluster.planner.choice import Choice
from cluster.planner.exact import EFFORT, RouteSearch
from cluster.planner.exact_choice import choice_of
from cluster.planner.exact_fill import Weights
from cluster.planner.exact_ground import Ground, classes, in_flights_of
from cluster.planner.exact_pair import BETTER, TIE, Pair
from cluster.planner.exact_split import Effort
from cluster.planner.hardware import Hardware, Measured
from swarm.plan import Model

WEIGHTS = {"latency": Weights(1.0, TIE), "throughput": Weights(TIE, 1.0), "balanced": Weights(0.5, 0.5)}
"""Of one stream's seconds and of all Sessions', see `objective_s`."""
DISTINCT, DEVICES, SETS = 10, 16, 1600
"""Devices that differ, Devices in all, and sets of owners, up to which the optimum is found."""
PAIR_EFFORT = Effort(columns=60_000, variables=1_000, nodes=40)
"""For one of two Routes of many Blocks."""
GLANCE = Effort(columns=30_000, variables=1, nodes=40)
"""For what is only said about a Plan, and decides nothing."""
ROUTES = 2
"""At most."""


def optimum(
    model: Model,
    hardware: Hardware,
    load: Load,
    must: frozenset[str] = frozenset(),
    routes: int = ROUTES,
    effort: Effort = EFFORT,
) -> Choice | None:
    """The Choice with the least `objective_s`; to spread, of those with most Devices. None where nothing fits.

    Args:
        must: names of Devices that are to be used whatever it costs.
        routes: at most.
        effort: for a Route of many Blocks with experts elsewhere.
    """
    usable = replace(hardware, devices=able(hardware, Prices.of(model, load)))
    free = Ground(model, usable, load, must=must)
    if not load.spread:
        return _best(free, routes, effort)
    for size in range(len(usable.devices), 0, -1):
        if size == len(usable.devices) - 1 and not _best(free, routes, effort):
            return None
        parts = (Ground(model, part, load, must=frozenset(d.name for d in part.devices)) for part in _parts(usable, size))
        found = [choice for ground in parts if (choice := _best(ground, routes, effort))]
        if found:
            return min(found, key=lambda c: c.seconds)
    return None


def in_reach(model: Model, hardware: Hardware, load: Load) -> bool:
    """Whether the optimum can be found in reasonable time: up to ten Devices that differ, however many are alike."""
    groups = classes(hardware, able(hardware, Prices.of(model, load)), frozenset())
    sets = prod(len(g) + 1 for g in groups)
    return len(groups) <= DISTINCT and sets <= SETS and sum(map(len, groups)) <= DEVICES


def able(hardware: Hardware, prices: Prices) -> tuple[Measured, ...]:
    """The Devices that could hold anything at all, by name."""
    least = min(prices.helper + prices.expert, prices.fixed(False, False) + prices.core)
    found = (d for d in hardware.devices if d.spec.memory_bytes >= least)
    return tuple(sorted(found, key=lambda d: d.name))


def _parts(hardware: Hardware, size: int) -> Iterator[Hardware]:
    """So many of the Devices, those that are alike counted once."""
    groups = classes(hardware, hardware.devices, frozenset())
    for counts in product(*(range(len(g), -1, -1) for g in groups)):
        if sum(counts) == size:
            kept = {i for g, n in zip(groups, counts, strict=True) for i in g[:n]}
            yield replace(hardware, devices=tuple(d for i, d in enumerate(hardware.devices) if i in kept))


def _best(ground: Ground, routes: int, effort: Effort) -> Choice | None:
    if not ground.devices:
        return None
    weights = WEIGHTS[ground.load.objective]
    one = RouteSearch(ground, weights, in_flights_of(ground), effort).best()
    found, least = one.found, one.least
    if ground.load.sessions >= routes > 1 and not ground.load.standby:
        pair = Pair(replace(ground, routes=routes), weights, min(effort, PAIR_EFFORT, key=lambda e: e.columns))
        two = pair.best(found.value * (1 - BETTER) if found else np.inf)
        least = min(least, pair.least)
        if two:
            return choice_of(two.routes, two.value, least)
    return choice_of([found], found.value, least) if found else None
