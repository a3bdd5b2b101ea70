"""Two Routes on one ground: how the Devices are parted between them, and the pair that is best.

A Route is solved by `exact.py`, on the Devices that a parting gives it; `Pair.least` bounds what was left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from cluster.planner.exact import RouteSearch
from cluster.planner.exact_best import Best, Found
from cluster.planner.exact_fill import Weights
from cluster.planner.exact_ground import Ground, in_flights_of
from cluster.planner.exact_paths import Counts
from cluster.planner.exact_split import Effort
from cluster.planner.exact_times import SMALL_SWARM, Times

TIE = 1e-10
"""The weight of what the objective does not ask for: it decides between equals."""
BETTER = 1e-9
"""A second Route must gain more than this share."""
QUICKEST = Weights(TIE, 1.0)
"""Of all Sessions' seconds alone."""
LOOSE = 1 + 1e-6
"""Of a bound, for what rounding and ties add."""
PARTINGS = 12
"""Of more than four Devices between two Routes, the most promising that are solved."""


@dataclass(frozen=True)
class Pairing:
    """Two Routes and what is minimised."""

    value: float
    routes: tuple[Found, Found]


@dataclass
class Pair:
    """Two Routes on a ground that they part between them."""

    ground: Ground
    weights: Weights
    effort: Effort

    def best(self, cutoff: float) -> Pairing | None:
        """None where nothing is better than `cutoff`; what no pair can be better than is in `least`."""
        self._known: dict[tuple[Counts, int, Weights, bool], tuple[float, Best]] = {}
        self._times: dict[frozenset[int], dict[float, Times]] = {}
        self.least = np.inf
        best: Pairing | None = None
        every = self._partings() if self._may_fit else []
        few = every if len(self.ground.devices) <= SMALL_SWARM else every[:PARTINGS]
        for least, part, number in few:
            if least.value(self.weights) >= cutoff:
                break
            self._exact, self._nearest = True, least
            for found in self._solved(part, number, least, cutoff):
                if found.value < cutoff:
                    best, cutoff = found, found.value
            if not self._exact:
                self.least = min(self.least, self._nearest.value(self.weights))
        if len(few) < len(every):
            self.least = min(self.least, every[len(few)][0].value(self.weights))
        return best

    @property
    def _may_fit(self) -> bool:
        """Whether all Devices together have memory for every Block twice."""
        prices, room = self.ground.prices, self.ground.helper_room
        return int(room.sum()) >= 2 * prices.num_blocks * prices.whole

    @property
    def _all(self) -> Counts:
        return tuple(len(c) for c in self.ground.classes)

    def _partings(self) -> list[tuple[_Least, Counts, int]]:
        """(bounds, Devices of the Route that one stream takes, micro-batches under way), lowest first."""
        alone, many = self._least(Weights(1.0, 0.0)), self._least(Weights(0.0, 1.0))
        found = []
        for part in product(*(range(n + 1) for n in self._all)):
            rest = self._rest(part)
            for number in in_flights_of(self.ground) if self._holds(part) and self._holds(rest) else ():
                first, one, other = min(alone[part].values(), default=np.inf), *(many[p].get(number, np.inf) for p in (part, rest))
                if max(first, one, other) < np.inf:
                    found.append((_Least(first, one, other), part, number))
        return sorted(found, key=lambda f: (f[0].value(self.weights), f[1:]))

    def _holds(self, part: Counts) -> bool:
        """Whether these Devices have memory for all Blocks, were it all theirs for experts."""
        prices, room = self.ground.prices, self.ground.helper_room
        total = sum(n * int(room[c[0]]) for c, n in zip(self.ground.classes, part, strict=True))
        return total >= prices.num_blocks * prices.whole

    def _least(self, weights: Weights) -> dict[Counts, dict[int, float]]:
        """For each part of the Devices and number under way, what one Route on it costs at least."""
        search = RouteSearch(self.ground, weights, in_flights_of(self.ground))
        found: dict[Counts, dict[int, float]] = {p: {} for p in product(*(range(n + 1) for n in self._all))}
        for bound, counts, row in search.bounds():
            number = search.in_flights[row]
            found[counts][number] = min(bound, found[counts].get(number, np.inf))
        for counts, least in found.items():
            for fewer in (tuple(n - (c == i) for i, n in enumerate(counts)) for c in range(len(counts)) if counts[c]):
                for number, bound in found[fewer].items():
                    least[number] = min(bound, least.get(number, np.inf))
        return found

    def _rest(self, part: Counts) -> Counts:
        return tuple(a - n for a, n in zip(self._all, part, strict=True))

    def _solved(self, part: Counts, number: int, least: _Least, cutoff: float) -> Iterator[Pairing]:
        """The best with one stream on this part: its seconds for all Sessions enter by a concave function, cut into secants.

        Each of the three extremes is asked for only where it may still be better than `cutoff`, and raises the bound for the next.
        """
        first = self._route(part, number, Weights(1.0, TIE), least.most_alone(self.weights, cutoff))
        least = self._nearest = replace(least, alone=max(least.alone, first.least / LOOSE))
        if first.found is None:
            return
        second = self._route(self._rest(part), number, QUICKEST, least.most_other(self.weights, cutoff), second=True)
        least = self._nearest = replace(least, other=max(least.other, second.least / LOOSE))
        if second.found is None:
            return
        if self.weights.many <= TIE:
            yield self._pairing(first.found, second.found)
            return
        third = self._route(part, number, QUICKEST, least.most_one(self.weights, cutoff))
        self._nearest = replace(least, one=max(least.one, third.least / LOOSE))
        if third.found is None:
            return
        soonest, other, mine = first.found, second.found, third.found
        for found in (mine, soonest):
            yield self._pairing(found, other)
        cutoff = min(cutoff, *(self._pairing(f, other).value for f in (mine, soonest)))
        yield from self._between(part, number, other, (mine.solved.many, soonest.solved.many), cutoff)

    def _between(self, part: Counts, number: int, other: Found, span: tuple[float, float], cutoff: float) -> Iterator[Pairing]:
        """Routes that are neither the quickest for one stream nor for all Sessions."""
        spans = [span]
        while spans:
            low, high = spans.pop()
            if high <= low * (1 + BETTER):
                continue
            at_low, at_high = (_together(t, other.solved.many) for t in (low, high))
            slope = (at_high - at_low) / (high - low)
            rest = self.weights.many * (at_low - slope * low)
            best = self._route(part, number, Weights(self.weights.alone, self.weights.many * slope, high), cutoff - rest).found
            if best is None:
                continue
            pairing = self._pairing(best, other)
            yield pairing
            cutoff = min(cutoff, pairing.value)
            at = best.solved.many
            if best.value + rest < cutoff * (1 - BETTER) and low * (1 + BETTER) < at < high * (1 - BETTER):
                spans += [(low, at), (at, high)]

    def _pairing(self, one: Found, other: Found) -> Pairing:
        alone = min(one.solved.alone, other.solved.alone)
        value = self.weights.of(alone, _together(one.solved.many, other.solved.many))
        return Pairing(value, (one, other))

    def _route(self, part: Counts, number: int, weights: Weights, cutoff: float, second: bool = False) -> Best:
        """The best on the first Devices of each class, or on the last for the second Route, where it is below `cutoff`."""
        key = (part, number, weights, second)
        known, best = self._known.get(key, (-np.inf, None))
        if best is None or (best.found is None and cutoff > known):
            pairs = zip(self.ground.classes, part, strict=True)
            kept = frozenset(i for c, n in pairs for i in (c[len(c) - n :] if second else c[:n]))
            devices = tuple(d for i, d in enumerate(self.ground.devices) if i in kept)
            ground = replace(self.ground, hardware=replace(self.ground.hardware, devices=devices))
            times = self._times.setdefault(kept, {})
            best = RouteSearch(ground, weights, (number,), self.effort, times).best(cutoff)
            self._known[key] = cutoff, best
        self._exact = self._exact and best.exact
        return best


@dataclass(frozen=True)
class _Least:
    """Bounds of two Routes, in seconds: one stream on the first, and all Sessions on each."""

    alone: float
    one: float
    other: float

    def value(self, weights: Weights) -> float:
        return weights.alone * self.alone + weights.many * _together(self.one, self.other)

    def most_alone(self, weights: Weights, cutoff: float) -> float:
        """What one stream may take in a pair that is better than `cutoff`."""
        return LOOSE * (cutoff - weights.many * _together(self.one, self.other)) / weights.alone

    def most_one(self, weights: Weights, cutoff: float) -> float:
        """What all Sessions of the first Route may take."""
        return _apart(self._most_together(weights, cutoff), self.other)

    def most_other(self, weights: Weights, cutoff: float) -> float:
        """What all Sessions of the second may take."""
        return _apart(self._most_together(weights, cutoff), self.one)

    def _most_together(self, weights: Weights, cutoff: float) -> float:
        return LOOSE * (cutoff - weights.alone * self.alone) / weights.many


def _apart(together: float, one: float) -> float:
    """The other's seconds, where both take so many and one of them so many."""
    return 1 / (2 / together - 1 / one) if 0 < together < 2 * one else np.inf if together > 0 else 0.0


def _together(one: float, other: float) -> float:
    """Seconds for all Sessions, where each Route serves half of them."""
    return 2 / (1 / one + 1 / other)
