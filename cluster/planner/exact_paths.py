"""The order of the Stages: the cheapest ways from a first to a last one through all owners.

Held and Karp's dynamic program over classes of alike Devices: what counts is how many of each class were visited, and which last.
C: classes   R: numbers of rows
Source: Held, Karp: A dynamic programming approach to sequencing problems, J. SIAM 10(1), 1962.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from cluster.planner.exact_ground import Floats, Ground
from cluster.planner.hardware import Measured

Counts = tuple[int, ...]
"""How many Devices of each class have Stages."""


@dataclass(frozen=True)
class Path:
    """One order: the classes of its Stages, and what its Hops take.

    Args:
        alone_s: with one row.
        around_s: with the rows of a micro-batch.
        link_s: how long its busiest link is taken by a micro-batch.
    """

    order: tuple[int, ...]
    alone_s: float
    around_s: float
    link_s: float

    def beats(self, other: Path) -> bool:
        mine, its = (self.alone_s, self.around_s, self.link_s), (other.alone_s, other.around_s, other.link_s)
        return all(a <= b for a, b in zip(mine, its, strict=True))


@dataclass(frozen=True)
class Paths:
    """Of all sets of owners on one ground.

    Args:
        rows: numbers of rows to price; the first of them 1.
    """

    ground: Ground
    rows: tuple[float, ...]

    @cached_property
    def hops(self) -> Floats:
        """[R, C, C] a Hop between two Devices of these classes."""
        return np.array([[[self.ground.costs.hop_s(a, b, r) for b in row] for a, row in self._pairs] for r in self.rows])

    @cached_property
    def links(self) -> Floats:
        """[C, C] how long a Hop of one row keeps its link."""
        return np.array([[self.ground.costs.hop_busy_s(a, b, 1.0) for b in row] for a, row in self._pairs])

    @property
    def _pairs(self) -> list[tuple[Measured, list[Measured]]]:
        devices, classes = self.ground.devices, self.ground.classes
        return [(devices[c[0]], [devices[d[-1]] if c is d else devices[d[0]] for d in classes]) for c in classes]

    @cached_property
    def owners(self) -> list[Counts]:
        """Every set of Devices that could have the Stages, smaller ones first."""
        room, blocks = self.ground.room(False, False), self.ground.prices.num_blocks
        most = [len(c) if room[c[0]] >= self.ground.prices.core else 0 for c in self.ground.classes]
        every = (counts for counts in product(*(range(m + 1) for m in most)) if 0 < sum(counts) <= blocks)
        return sorted(every, key=lambda counts: (sum(counts), tuple(-n for n in counts)))

    @cached_property
    def least(self) -> dict[Counts, tuple[Floats, Floats]]:
        """For each set: [R, C, C] the least sum of Hops, and [C, C] of the busiest link, by first and last class."""
        found: dict[Counts, tuple[Floats, Floats]] = {}
        size = len(self.ground.classes)
        for counts in self.owners:
            sums, most = np.full((len(self.rows), size, size), np.inf), np.full((size, size), np.inf)
            for last in (c for c in range(size) if counts[c]):
                if sum(counts) == 1:
                    sums[:, last, last] = most[last, last] = 0.0
                    continue
                before_sums, before_most = found[_without(counts, last)]
                sums[:, :, last] = (before_sums + self.hops[:, None, :, last]).min(axis=2)
                most[:, last] = np.maximum(before_most, self.links[None, :, last]).min(axis=1)
            found[counts] = sums, most
        return found

    def best(self, counts: Counts, first: int, last: int, row: int) -> list[Path]:
        """The orders of which none is beaten by another, with `rows[row]` rows in a micro-batch."""
        known: dict[tuple[Counts, int], list[Path]] = {}

        def to(left: Counts, at: int) -> list[Path]:
            if (left, at) not in known:
                known[left, at] = _unbeaten([self._longer(p, at, row) for k in before(left, at) for p in to(_without(left, at), k)])
            return known[left, at]

        def before(left: Counts, at: int) -> list[int]:
            rest = _without(left, at)
            if sum(rest) == 1:
                return [first] if rest[first] else []
            inner = _without(rest, first) if rest[first] else None
            return [k for k in range(len(rest)) if inner and inner[k]]

        start = tuple(int(c == first) for c in range(len(counts)))
        known[start, first] = [Path((first,), 0.0, 0.0, 0.0)]
        return to(counts, last)

    def _longer(self, path: Path, to: int, row: int) -> Path:
        a = path.order[-1]
        link = max(path.link_s, self.rows[row] * float(self.links[a, to]))
        alone, around = (path.alone_s + float(self.hops[0, a, to]), path.around_s + float(self.hops[row, a, to]))
        return Path((*path.order, to), alone, around, link)


def _without(counts: Sequence[int], one: int) -> Counts:
    return tuple(n - (c == one) for c, n in enumerate(counts))


def _unbeaten(paths: list[Path]) -> list[Path]:
    kept: list[Path] = []
    for path in sorted(paths, key=lambda p: (p.alone_s, p.around_s, p.link_s, p.order)):
        if not any(k.beats(path) for k in kept):
            kept.append(path)
    return kept
