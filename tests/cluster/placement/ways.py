"""What one Block can do on each way of placing its experts and its standby copy, as sums that add up over Blocks.

A row of numbers is: bytes on each Device, standby copies on each Device, the seconds of one stream on each Route; then, for
each number of micro-batches under way and each Route, the seconds around and the busy seconds of each Device.
D: Devices   R: Routes   N: numbers of micro-batches under way   C: columns, 2 D + R + N R (1 + D)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from cluster.planner import Load, Prices
from cluster.planner.costs import Away, Costs
from cluster.planner.hardware import Hardware
from swarm.plan import Model

Floats = NDArray[np.float64]
Counts = tuple[int, ...]
"""Experts of one Block on each Device, besides its owner's."""


@dataclass(frozen=True)
class Way:
    """How one Block is placed: experts away on each Route, and who stands by (-1: nobody)."""

    away: tuple[Counts, ...]
    standby: int


@dataclass(frozen=True)
class Ways:
    """All prices for Plans whose Stages are on the Devices `staged`, by their indices.

    Args:
        parts: the Devices that may hold anything for each of the Routes.
    """

    model: Model
    hardware: Hardware
    load: Load
    staged: frozenset[int]
    parts: tuple[frozenset[int], ...]

    @property
    def routes(self) -> int:
        return len(self.parts)

    @cached_property
    def prices(self) -> Prices:
        return Prices.of(self.model, self.load, self.routes)

    @cached_property
    def costs(self) -> Costs:
        return Costs(self.prices, self.hardware)

    @property
    def rows(self) -> list[float]:
        """Rows of a micro-batch, for each number of them under way: from 1 to the Sessions of a Route; none for latency."""
        if self.load.objective == "latency":
            return []
        return [self.load.sessions / self.routes / n for n in range(1, self.prices.sessions + 1)]

    @property
    def num_devices(self) -> int:
        return len(self.hardware.devices)

    @property
    def columns(self) -> int:
        return 2 * self.num_devices + self.routes + len(self.rows) * self.routes * (1 + self.num_devices)

    def flow(self, sums: Floats) -> Floats:
        """The part of rows [X, C] for many streams, [X, N, R, 1 + D]; a view."""
        return sums[:, 2 * self.num_devices + self.routes :].reshape(-1, len(self.rows), self.routes, 1 + self.num_devices)

    @cached_property
    def of_block(self) -> Callable[[tuple[int, ...]], tuple[list[Way], Floats]]:
        """Every way of a Block with one owner a Route, and their rows [X, C]."""
        return cache(self._of_block)

    @cached_property
    def worth_trying(self) -> Callable[[tuple[int, ...]], tuple[list[Way], Floats]]:
        """Those that no other way beats in everything."""

        def unbeaten_of(owners: tuple[int, ...]) -> tuple[list[Way], Floats]:
            ways, sums = self.of_block(owners)
            kept = unbeaten(sums)
            return [ways[i] for i in kept], sums[kept]

        return cache(unbeaten_of)

    def _of_block(self, owners: tuple[int, ...]) -> tuple[list[Way], Floats]:
        counts = [[c for c in of_route if not any(c[o] for o in owners)] for of_route in self._counts]
        rows = [[self._known(r, owner, c) for c in counts[r]] for r, owner in enumerate(owners)]
        ways: list[Way] = []
        sums: list[Floats] = []
        for chosen in product(*(range(len(of_route)) for of_route in counts)):
            away = tuple(of_route[i] for i, of_route in zip(chosen, counts, strict=True))
            if any(sum(c) > self.prices.num_experts for c in zip(*away, strict=True)):
                continue  # some expert of it would be on one Device for both Routes
            row = np.sum([of_route[i] for i, of_route in zip(chosen, rows, strict=True)], axis=0)
            for standby in self._standbys(owners, away) if self.load.standby else [-1]:
                ways.append(Way(away, standby))
                sums.append(row if standby < 0 else row + self._standing_by(standby))
        return ways, np.array(sums).reshape(-1, self.columns)

    @cached_property
    def _counts(self) -> list[list[Counts]]:
        """For each Route, all that can be away of one of its Blocks."""
        experts = self.prices.num_experts
        places = [[range(experts + 1 if d in part else 1) for d in range(self.num_devices)] for part in self.parts]
        return [[c for c in product(*of_route) if sum(c) <= experts] for of_route in places]

    def _standbys(self, owners: Sequence[int], away: Sequence[Counts]) -> list[int]:
        rigs = [d.rig for d in self.hardware.devices]
        serving = {rigs[o] for o in owners} | {rigs[d] for c in away for d, n in enumerate(c) if n}
        return [d for d, rig in enumerate(rigs) if rig not in serving]

    def _standing_by(self, standby: int) -> Floats:
        row = np.zeros(self.columns)
        row[standby], row[self.num_devices + standby] = self.prices.whole, 1
        return row

    @cached_property
    def _known(self) -> Callable[[int, int, Counts], Floats]:
        return cache(self._row)

    def _row(self, route: int, owner: int, counts: Counts) -> Floats:
        sums, devices = np.zeros((1, self.columns)), self.hardware.devices
        holders = [d for d, n in enumerate(counts) if n]
        sums[0, owner] = self.prices.whole - sum(counts) * self.prices.expert
        sums[0, holders] = [counts[d] * self.prices.expert for d in holders]
        idle = [Away(devices[d], counts[d]) for d in holders]
        sums[0, 2 * self.num_devices + route] = self.costs.block_s(devices[owner], idle, 1).owner_s
        busy = [Away(devices[d], counts[d], d in self.staged) for d in holders]
        for n, rows in enumerate(self.rows):
            time, flow = self.costs.block_s(devices[owner], busy, rows), self.flow(sums)[0, n, route]
            flow[0] = flow[1 + owner] = time.owner_s
            flow[[1 + d for d in holders]] = time.away_s
        row: Floats = sums[0]
        return row

    def base(self, orders: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
        """What Stages in these orders cost without any Block, a row [1, C], and the busy seconds of their links [N, R]."""
        sums, devices = np.zeros((1, self.columns)), self.hardware.devices
        links = np.zeros((len(self.rows), self.routes))
        for r, order in enumerate(orders):
            stages = [devices[d] for d in order]
            ends = [(d is stages[0], d is stages[-1]) for d in stages]
            software = sum(self.costs.frame_s(d) for d in stages) + self.costs.client_s(stages[0], stages[-1])
            for i, (first, last) in zip(order, ends, strict=True):
                sums[0, i] = self.prices.fixed(first, last)
            alone = sum(self.costs.ends_s(d, *end, 1) for d, end in zip(stages, ends, strict=True))
            sums[0, 2 * self.num_devices + r] = software + alone + sum(self.costs.hop_s(a, b, 1) for a, b in pairwise(stages))
            for n, rows in enumerate(self.rows):
                flow, own = self.flow(sums)[0, n, r], [self.costs.ends_s(d, *e, rows) for d, e in zip(stages, ends, strict=True)]
                flow[[1 + i for i in order]] = own
                flow[0] = software + sum(own) + sum(self.costs.hop_s(a, b, rows) for a, b in pairwise(stages))
                links[n, r] = max((self.costs.hop_busy_s(a, b, rows) for a, b in pairwise(stages)), default=0.0)
        return sums, links

    def within_memory(self, sums: Floats) -> NDArray[np.bool_]:
        """Of rows [X, C], which hold on every Device no more than it has."""
        bytes_, standing = sums[:, : self.num_devices], sums[:, self.num_devices : 2 * self.num_devices]
        unstaged = np.array([d not in self.staged for d in range(self.num_devices)])
        workspace = np.where(standing > 0, self.prices.fixed(False, False), np.where(bytes_ > 0, self.prices.helper, 0))
        memory = np.array([d.spec.memory_bytes for d in self.hardware.devices])
        within: NDArray[np.bool_] = (bytes_ + unstaged * workspace <= memory).all(axis=1)
        return within

    def seconds(self, sums: Floats, links: Floats) -> Floats:
        """`objective_s` of rows [X, C]."""
        alone: Floats = sums[:, 2 * self.num_devices : 2 * self.num_devices + self.routes].min(axis=1)
        if self.load.objective == "latency":
            return alone
        flow, under_way = self.flow(sums), np.arange(1, len(self.rows) + 1)[:, None]
        slowest = np.maximum(flow[..., 1:].max(axis=-1), links)
        rates = self.load.sessions / self.routes / np.maximum(under_way * slowest, flow[..., 0])
        many = self.load.sessions / rates.sum(axis=2).max(axis=1)
        seconds: Floats = many if self.load.objective == "throughput" else (alone + many) / 2
        return seconds


def unbeaten(sums: Floats) -> NDArray[np.int64]:
    """Rows than which no other row is less or equal everywhere; of equal ones one."""
    order = np.lexsort(sums.T[::-1])
    rows, kept, count = np.empty_like(sums), np.empty(len(sums), np.int64), 0
    for i in order:
        if not (rows[:count] <= sums[i]).all(axis=1).any():
            rows[count], kept[count], count = sums[i], i, count + 1
    found: NDArray[np.int64] = kept[:count]
    return found
