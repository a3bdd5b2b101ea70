"""A lower bound of the objective over all Plans: no search can find better, so it says how good the one found is.

Relaxed: Hops are as short as the shortest to their Rig; ExpertShards are asked over the best link of the owner, never wait, and
their memory is endless; between two numbers in flight the better of both counts, for the slowest Stage and for the way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cluster.planner.large_least import Least, fair_prices, memory_prices, worth_of_all
from cluster.planner.large_relaxed import Relaxed
from cluster.planner.large_route import RouteSearch, fixed_s
from cluster.planner.ordered import capped
from cluster.planner.tables import MIDDLE, Floats, Table, Terms

LADDER = 12
"""Steps between the least time of the slowest Stage and the one that alone is as bad as what was found."""
INTERVALS = 6
"""Numbers in flight are taken together in so many intervals, at most; all alone where they are as few."""


PRICES = (0.0, 0.4, 0.7, 1.0)
"""Which parts of the guessed prices of memory are tried; each gives a valid bound, the best one counts."""
FAIR = (0.9, 1.0)
"""The same of the prices of a linear program."""


@dataclass(frozen=True)
class Bound:
    """Bounds over one or several Routes of a table.

    Args:
        found_s: the objective of a Plan that was found: worse ones need no bound.
    """

    table: Table
    found_s: float

    def seconds(self) -> float:
        """The least that the objective can be; infinite where no such Plan fits."""
        one, many = self.table.weights
        alone = Least.of(self.table, 1)
        stream_s = self._best([alone.weighed(one or 1.0)], [np.inf])[0]
        if not many or not np.isfinite(stream_s):
            return float(stream_s)
        sessions = self.table.costs.prices.sessions
        steps = sorted({round(n) for n in np.geomspace(1, sessions, INTERVALS)})
        return min(self._within(a, b, alone, float(stream_s) * bool(one)) for a, b in _intervals(steps))

    def _within(self, fewest: int, most: int, alone: Least, stream_s: float) -> float:
        """With so many micro-batches in flight; a micro-batch only gets quicker with fewer rows, a row with more of them.

        Args:
            stream_s: what the objective takes of one stream alone at least.
        """
        one, many = self.table.weights
        slowest = Least.of(self.table, self.table.sessions / fewest).weighed(fewest)
        around = slowest.weighed(1 / fewest) if most == fewest else Least.of(self.table, self.table.sessions / most)
        block = slowest.times.min(axis=(1, 2))
        if self.table.routes > 1:
            shared = self.table.routes / (1 / block).sum() * self.table.num_blocks
            return float(stream_s + max(many * shared, self._best([around.weighed(many)], [np.inf])[0]))
        low = self._least_limit(block)
        high = max((self.found_s - stream_s) / many, low * 1.0001)
        limits = np.geomspace(low, high, LADDER)
        both = alone.weighed(one).plus(around.weighed(many))
        sums = self._best([both] * (LADDER - 1), limits[1:].tolist(), replace(slowest.terms, block=block))
        steps = np.maximum(sums, stream_s + many * limits[:-1])
        return float(min(steps.min(), stream_s + many * high))

    def _best(self, leasts: Sequence[Least], limits: Sequence[float], slowest: Terms | None = None) -> Floats:
        """The best bounds of all prices of memory, for sums with no Stage longer than its limit."""
        terms = leasts[0].terms
        dearest = self._dearest(terms)
        tried = [part * memory_prices(self.table, terms, dearest) for part in PRICES]
        tried += [part * fair_prices(self.table, leasts[0]) for part in FAIR]
        if len(leasts) > 1:
            first = [self._sums(leasts[-1:], limits[-1:], slowest, prices)[0] for prices in tried]
            tried = [tried[int(np.argmax(first))]]
        best: Floats = np.max([self._sums(leasts, limits, slowest, prices) for prices in tried], axis=0)
        return best

    def _dearest(self, terms: Terms) -> float:
        """What the dearest Block takes where all are whole and Hops are short; infinite where they do not fit."""
        room = self.table.caps[MIDDLE]
        enter = terms.hop.min(axis=0)
        each = terms.block + (terms.frame + enter) / np.maximum(room, 1)
        order = [d for d in np.argsort(each, kind="stable").tolist() if room[d]]
        filled = np.cumsum(room[order]) if order else np.zeros(1)
        place = int(np.searchsorted(filled, self.table.num_blocks))
        return float(each[order[place]]) if place < len(order) else np.inf

    def _least_limit(self, block: Floats) -> float:
        """The shortest time of the slowest Stage under which there is room for all Blocks, were there no ends; by halving."""
        room = self.table.cores[MIDDLE]
        low, high = 0.0, float((block * self.table.num_blocks).max())
        for _ in range(40):
            middle = (low + high) / 2
            fits = np.minimum(room, np.floor(middle / block)).sum() >= self.table.num_blocks
            low, high = (low, middle) if fits else (middle, high)
        return low

    def _sums(self, leasts: Sequence[Least], limits: Sequence[float], slowest: Terms | None, prices: Floats) -> Floats:
        """The relaxed optima at some prices of memory, less what all of it is worth."""
        caps, whole = self.table.cores, -(-self.table.room // self.table.costs.prices.whole)
        search = RouteSearch.over(self.table)
        hops = [search.hops(least.terms) for least in leasts]
        limited = np.stack([capped(caps, slowest, limit) if slowest else caps for limit in limits])
        blocks = [least.block(self.table, prices) for least in leasts]
        sums: Floats = (
            Relaxed(
                rigs=search.rigs,
                block=np.stack([block for block, _ in blocks]),
                beyond=np.stack([beyond for _, beyond in blocks]),
                fixed=np.stack([fixed_s(least.terms) for least in leasts]),
                whole=np.minimum(limited, whole),
                caps=limited,
                enter=np.array([enter for enter, _ in hops]),
                inside=np.array([inside for _, inside in hops]),
                num_blocks=self.table.num_blocks,
            )
            .solve()
            .sums
        )
        return sums - worth_of_all(self.table, prices)


def _intervals(steps: Sequence[int]) -> list[tuple[int, int]]:
    """Each number alone where all of them are there; else from each to the next."""
    if len(steps) == steps[-1]:
        return [(n, n) for n in steps]
    return list(pairwise(steps))
