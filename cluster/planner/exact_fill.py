"""How many Blocks each Device of a Stage gets, where every Block costs a Device the same: solved for many sets of owners at once.

For each time that the slowest Worker may take, Blocks go to the quickest Devices that have room for them within it; that is best
where a Device that is quicker with one row is quicker with many, and a bound where it is not.
X: sets of owners   N: Devices   Z: times that the slowest Worker may take   M: pairs of both with room for all Blocks
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cluster.planner.exact_ground import Floats, Ints

CHUNK = 1_000_000
"""Numbers in one array, at most."""
SLACK = 1e-9
"""Of a Block, so that rounding takes none away."""
ANCHORS = 9
"""Times of the slowest Worker at which each set is priced first."""
ROUNDED = 1e-12
"""Relative difference of seconds that rounding explains."""


@dataclass(frozen=True)
class Weights:
    """What is minimised: `alone` x one stream's seconds + `many` x those of all Sessions, of which there may be `most`."""

    alone: float
    many: float
    most: float = np.inf

    def of(self, alone_s: float, many_s: float) -> float:
        return self.alone * alone_s + self.many * many_s if many_s <= self.most else np.inf


@dataclass(frozen=True)
class Stages:
    """Sets of owners, and what is the same for all Blocks on a Device; seconds.

    Args:
        owner: [X, N] 1 where a Device has a Stage: it gets at least one Block.
        most: [X, N] Blocks that it has room for.
        plenty: [X, N] Blocks that it holds without experts elsewhere; from there on each costs `dearer` in place of `alone`.
        alone, many: [N] a Block with one row, and with those of a micro-batch.
        dearer: [2, N] the same of further Blocks, at least.
        ends: [X, N] busy beside its Blocks.
        fixed: [X, 2] beside all Blocks, with one row and with those of a micro-batch.
        link: [X] the busiest link.
    """

    owner: Ints
    most: Ints
    plenty: Floats
    alone: Floats
    many: Floats
    dearer: Floats
    ends: Floats
    fixed: Floats
    link: Floats

    def of(self, sets: Ints) -> Stages:
        """Of some of the sets."""
        return replace(
            self,
            owner=self.owner[sets],
            most=self.most[sets],
            plenty=self.plenty[sets],
            ends=self.ends[sets],
            fixed=self.fixed[sets],
            link=self.link[sets],
        )


@dataclass(frozen=True)
class Filled:
    """The best of each set of owners: seconds [X], inf where the Blocks do not fit; Blocks [X, N]."""

    seconds: Floats
    blocks: Ints


def fill(stages: Stages, num_blocks: int, in_flight: int, weights: Weights, most: float = np.inf) -> Filled:
    """The least `weights` of each set of owners; what is above `most` may be given as inf."""
    seconds, blocks = np.full(len(stages.owner), np.inf), np.zeros(stages.owner.shape, np.int64)
    for at in _chunks(stages, num_blocks):
        pairs = _pairs(stages, at, num_blocks, in_flight, weights)
        if len(pairs.x):
            pairs = pairs.at(pairs.likely(most))
            _, value, found = pairs.priced()
            order = np.lexsort((value, pairs.x))
            rows, firsts = np.unique(pairs.x[order], return_index=True)
            best = order[firsts]
            seconds[rows + at.start], blocks[rows + at.start] = value[best], np.rint(found[best]).astype(np.int64)
    return Filled(seconds, blocks)


def _chunks(stages: Stages, num_blocks: int) -> Iterator[slice]:
    rows, devices = stages.owner.shape
    size = max(1, CHUNK // (2 * devices * devices * num_blocks))
    return (slice(i, i + size) for i in range(0, rows, size))


@dataclass(frozen=True)
class _Pairs:
    """Sets of owners with times of the slowest Worker within which they have room for all Blocks, in order.

    Args:
        x, busy, caps: [M] the set, [M] the time of the slowest Worker or link, [M, N] Blocks that each Device may have.
    """

    stages: Stages
    num_blocks: int
    in_flight: int
    weights: Weights
    x: Ints
    busy: Floats
    caps: Floats
    first: int
    """Of the sets, among all."""

    def at(self, kept: Ints) -> _Pairs:
        return replace(self, x=self.x[kept], busy=self.busy[kept], caps=self.caps[kept])

    def priced(self) -> tuple[Floats, Floats, Floats]:
        """[2, M] seconds of one stream and around, [M] what is minimised, [M, N] Blocks."""
        stages, of = self.stages, self.x + self.first
        owner, fixed = stages.owner[of], stages.fixed[of]
        plenty = np.minimum(self.caps, stages.plenty[of])
        blocks, alone = _cheapest(owner, self.caps, plenty, stages.alone, stages.dearer[0], self.num_blocks)
        _, around = _cheapest(owner, self.caps, plenty, stages.many, stages.dearer[1], self.num_blocks)
        times = np.stack([fixed[:, 0] + alone, fixed[:, 1] + around])
        return times, self._value(times, self.busy), blocks

    def _value(self, times: Floats, busy: Floats) -> Floats:
        many = np.maximum(self.in_flight * busy, times[1])
        return np.where(many <= self.weights.most, self.weights.alone * times[0] + self.weights.many * many, np.inf)

    def likely(self, most: float) -> Ints:
        """Those that can be a set's best: more room never takes longer, so a few pairs of each set bound all others."""
        _, starts, row, lengths = np.unique(self.x, return_index=True, return_inverse=True, return_counts=True)
        if len(self.x) <= ANCHORS * len(starts):
            return np.arange(len(self.x))
        places = (lengths[:, None] - 1) * np.arange(ANCHORS) // (ANCHORS - 1)  # [rows, ANCHORS]
        anchors = self.at((starts[:, None] + places).ravel())
        times, value, _ = anchors.priced()
        limit = np.minimum(value.reshape(places.shape).min(axis=1), most)
        next_ = (places[row] < (np.arange(len(self.x)) - starts[row])[:, None]).sum(axis=1)
        bound = self._value(times[:, row * ANCHORS + next_], self.busy)
        return np.flatnonzero(bound <= limit[row] * (1 + ROUNDED))


def _pairs(stages: Stages, at: slice, num_blocks: int, in_flight: int, weights: Weights) -> _Pairs:
    owner, ends = stages.owner[at], stages.ends[at]
    most = np.minimum(stages.most[at], num_blocks) * owner
    steps = np.arange(1, num_blocks + 1)
    times = np.where(steps <= most[..., None], ends[..., None] + steps * stages.many[:, None], np.inf).reshape(len(owner), -1)
    times = np.sort(times, axis=1)[:, : int(np.isfinite(times).sum(axis=1).max(initial=0))]  # [X, Z]
    with np.errstate(invalid="ignore"):
        within = np.floor((times[..., None] - ends[:, None, :]) / stages.many + SLACK)
    caps = np.minimum(np.where(np.isfinite(times)[..., None], within, 0), most[:, None, :])  # [X, Z, N]
    x, z = np.nonzero((caps >= owner[:, None, :]).all(axis=2) & (caps.sum(axis=2) >= num_blocks))
    busy = np.maximum(times[x, z], stages.link[at][x])
    return _Pairs(stages, num_blocks, in_flight, weights, x, busy, caps[x, z], at.start)


def _cheapest(owner: Ints, caps: Floats, plenty: Floats, price: Floats, dearer: Floats, num_blocks: int) -> tuple[Floats, Floats]:
    """Blocks [M, N] on each Device, one at least on each owner, and their sum of prices [M]."""
    first = np.minimum(owner, plenty)
    least = np.concatenate([first, owner - first], axis=1)
    room = np.maximum(np.concatenate([plenty, caps - plenty], axis=1) - least, 0)
    prices = np.concatenate([price, dearer])
    order = np.argsort(prices, kind="stable")
    left = num_blocks - owner.sum(axis=1)[:, None]
    before = np.cumsum(room[:, order], axis=1) - room[:, order]
    taken = np.empty_like(room)
    taken[:, order] = np.clip(left - before, 0, room[:, order])
    taken += least
    devices = taken.shape[1] // 2
    return taken[:, :devices] + taken[:, devices:], taken @ prices
