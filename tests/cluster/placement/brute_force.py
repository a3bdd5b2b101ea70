"""The best of all Plans of a small swarm, by trying every one: every order of Stages, every split, every count of experts.

Blocks between the same owners are interchangeable, and experts of a Block are, so multisets of ways are tried and not ids. All
that is skipped is what cannot matter: a way, or a part of a Plan, that another beats in every number, and parts that already cost
more than the best Plan seen. It knows nothing of how the planner searches; the winner is a real Plan, priced by `predict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, pairwise, permutations, product

import numpy as np
from every_plan import plan_of, routes_of
from numpy.typing import NDArray
from ways import Floats, Way, Ways, unbeaten

from cluster.planner import Load
from cluster.planner.hardware import Hardware
from cluster.planner.predict import objective_s, predict
from swarm.plan import Model, Plan, Route, Stage

CHUNK = 4000
"""Partial Plans carried on together."""


@dataclass(frozen=True)
class Split:
    """Owners in order and the Blocks at which each one's Stage ends, on one Route."""

    order: tuple[int, ...]
    ends: tuple[int, ...]

    def owner(self, block: int) -> int:
        return next(d for d, end in zip(self.order, self.ends, strict=True) if block < end)


@dataclass
class _Best:
    seconds: float = float("inf")
    splits: tuple[Split, ...] = ()
    ways: list[Way] = field(default_factory=list)


def brute_force(model: Model, hardware: Hardware, load: Load, shared: bool = False) -> tuple[float, Plan] | None:
    """The least of `objective_s` over all Plans of one Route or two, and a Plan that has it; None where none fits.

    Args:
        shared: a Worker may hold something for both Routes.
    """
    best = _Best()

    @cache
    def ways(staged: frozenset[int], parts: tuple[frozenset[int], ...]) -> Ways:
        return Ways(model, hardware, load, staged, parts)

    trials = []
    for splits in _splits(len(hardware.devices), model.config.num_blocks, routes_of(load)):
        staged = frozenset(d for split in splits for d in split.order)
        for parts in _parts(len(hardware.devices), splits, shared):
            trial = _Trial(ways(staged, parts), splits, model.config.num_blocks)
            if trial.possible:
                trials.append(trial)
    for trial in sorted(trials, key=lambda t: t.bound):
        if trial.bound >= best.seconds:
            break
        trial.run(best)
    if not best.splits:
        return None
    plan = _real(model, hardware, load, best)
    seconds = objective_s(predict(plan, hardware, load), load)
    assert abs(seconds - best.seconds) <= 1e-9 * seconds, "the sums over Blocks and `predict` disagree"
    return seconds, plan


def _splits(devices: int, blocks: int, max_routes: int) -> Iterator[tuple[Split, ...]]:
    every = [
        Split(order, (*cuts, blocks))
        for size in range(1, min(devices, blocks) + 1)
        for order in permutations(range(devices), size)
        for cuts in combinations(range(1, blocks), size - 1)
    ]
    for routes in range(1, max_routes + 1):
        for splits in combinations(every, routes):
            owners = [d for split in splits for d in split.order]
            if len(set(owners)) == len(owners):
                yield splits


def _parts(devices: int, splits: tuple[Split, ...], shared: bool) -> Iterator[tuple[frozenset[int], ...]]:
    """The Devices that may hold anything for each Route: all, or every way to deal out those without a Stage."""
    if shared or len(splits) == 1:
        yield (frozenset(range(devices)),) * len(splits)
        return
    staged = [frozenset(split.order) for split in splits]
    idle = [d for d in range(devices) if not any(d in order for order in staged)]
    for dealt in product(range(len(splits)), repeat=len(idle)):
        yield tuple(order | {d for d, to in zip(idle, dealt, strict=True) if to == r} for r, order in enumerate(staged))


class _Trial:
    """All Plans with the same Stages."""

    def __init__(self, ways: Ways, splits: tuple[Split, ...], num_blocks: int) -> None:
        self.ways, self.splits = ways, splits
        self.owners = [tuple(split.owner(block) for split in splits) for block in range(num_blocks)]
        of_block = [ways.of_block(owners) for owners in self.owners]
        self.possible = all(found for found, _ in of_block)
        if self.possible:
            self.base, self.links = ways.base([split.order for split in splits])
            least = np.array([sums.min(axis=0) for _, sums in of_block])
            self.rest = np.concatenate([np.cumsum(least[::-1], axis=0)[::-1], np.zeros((1, ways.columns))])
            self.bound = float(ways.seconds(self.base + self.rest[0], self.links)[0])

    def run(self, best: _Best) -> None:
        """Try them all, and better `best` where one of them does."""
        sums, path = self.base, np.zeros((1, 0), np.int64)
        for block in range(len(self.owners)):
            parts = [self._grown(sums[i : i + CHUNK], path[i : i + CHUNK], best) for i in range(0, len(sums), CHUNK)]
            if not parts:
                return
            sums, path = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            if block + 1 < len(self.owners):
                kept = self._unbeaten(sums, path)
                sums, path = sums[kept], path[kept]
        if len(sums):
            seconds = self.ways.seconds(sums, self.links)
            best.seconds, best.splits = float(seconds.min()), self.splits
            chosen = path[int(seconds.argmin())]
            best.ways = [self.ways.worth_trying(o)[0][i] for o, i in zip(self.owners, chosen, strict=True)]

    def _unbeaten(self, sums: Floats, path: NDArray[np.int64]) -> NDArray[np.int64]:
        """Partial Plans that no other one beats in every number while it may go on in at least the same ways."""
        block = path.shape[1]
        free = self.owners[block] != self.owners[block - 1]
        last = np.zeros(len(path)) if free else path[:, -1].astype(np.float64)
        return unbeaten(np.column_stack([sums, last]))

    def _grown(self, sums: Floats, path: NDArray[np.int64], best: _Best) -> tuple[Floats, NDArray[np.int64]]:
        """One more Block in every way that keeps to memory and can still be best."""
        block = path.shape[1]
        added = self.ways.worth_trying(self.owners[block])[1]
        last = path[:, -1] if block and self.owners[block] == self.owners[block - 1] else np.zeros(len(path), np.int64)
        before, way = np.nonzero(last[:, None] <= np.arange(len(added))[None, :])
        grown = sums[before] + added[way]
        outlook = grown + self.rest[block + 1]
        seconds = self.ways.seconds(outlook, self.links)
        kept = np.nonzero(self.ways.within_memory(outlook) & (seconds < best.seconds))[0]
        return grown[kept], np.concatenate([path[before[kept]], way[kept, None]], axis=1)


def _real(model: Model, hardware: Hardware, load: Load, best: _Best) -> Plan:
    names = [d.name for d in hardware.devices]
    routes = [
        Route(tuple(Stage(names[d], a, b) for d, (a, b) in zip(split.order, pairwise((0, *split.ends)), strict=True)))
        for split in best.splits
    ]
    where = []
    for block, way in enumerate(best.ways):
        holders = [_holders(names, split.owner(block), away, model) for split, away in zip(best.splits, way.away, strict=True)]
        where.append((holders[0], *(_apart(holders[0], other) for other in holders[1:])))
    by = [names[way.standby] if way.standby >= 0 else "" for way in best.ways]
    plan = plan_of(model, hardware, load, routes, where, by)
    plan.check("brute force's own plan")
    return plan


def _holders(names: Sequence[str], owner: int, away: Sequence[int], model: Model) -> tuple[str, ...]:
    local = model.config.num_experts - sum(away)
    return (names[owner],) * local + tuple(names[d] for d, n in enumerate(away) for _ in range(n))


def _apart(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """`other` in an order in which no Worker holds the same expert for both Routes."""
    return next(p for p in permutations(other) if all(a != b for a, b in zip(one, p, strict=True)))
