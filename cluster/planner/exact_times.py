"""Seconds of every kind of Block on every Device, for one number of rows, as arrays: those of `Costs`, priced once.

N: Devices   E: experts   W: other Devices that hold experts of one Block, at most   K: kinds of Block, the same for each owner
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import comb

import numpy as np

from cluster.planner.costs import Away, Costs
from cluster.planner.exact_ground import Floats, Ground, Ints

SMALL_SWARM = 4
"""Up to so many Devices, a Block's experts may be on all of them."""
MOST_KINDS = 3000
"""Of one owner; where more than so many compositions exist, a Block's experts are on fewer Devices."""


@dataclass(frozen=True)
class Kinds:
    """Which other Devices hold how many experts of a Block; kind 0 is a whole Block.

    Args:
        places: [K, W] positions in the list of the other Devices; the number of them where there is no further one.
        counts: [K, W] experts on each; 0 where there is no further one.
    """

    places: Ints
    counts: Ints

    @property
    def away(self) -> Ints:
        """[K] experts that the owner does not hold."""
        return np.asarray(self.counts.sum(axis=1), np.int64)

    @classmethod
    def of(cls, others: int, experts: int) -> Kinds:
        """All on at most W others: 3 in a small swarm, else 2, or 1 where there are too many kinds."""
        widths = [w for w in ((3, 2, 1) if others < SMALL_SWARM else (2, 1)) if w <= others]
        width = next((w for w in widths if _number(others, experts, w) <= MOST_KINDS), min(1, others))
        rows = [
            (places + (others,) * (width - used), counts + (0,) * (width - used))
            for used in range(width + 1)
            for counts in _compositions(used, experts)
            for places in combinations(range(others), used)
        ]
        places, counts = (np.array([r[i] for r in rows], np.int64).reshape(len(rows), width) for i in (0, 1))
        return cls(places, counts)


def _compositions(parts: int, most: int) -> list[tuple[int, ...]]:
    return [c for c in product(range(1, most + 1), repeat=parts) if sum(c) <= most]


def _shares(others: int, chosen: int) -> list[tuple[int, ...]]:
    """How many experts of a row may be with the owner, and with each of so many others."""
    return [(chosen - sum(c), *c) for c in product(range(chosen + 1), repeat=others) if sum(c) <= chosen]


def _number(others: int, experts: int, width: int) -> int:
    if experts**width > 100 * MOST_KINDS:
        return MOST_KINDS + 1
    return sum(len(list(combinations(range(others), w))) * len(_compositions(w, experts)) for w in range(width + 1))


@dataclass(frozen=True)
class Times:
    """What Blocks take with that many rows in a micro-batch."""

    ground: Ground
    kinds: Kinds
    rows: float

    @property
    def costs(self) -> Costs:
        return self.ground.costs

    @cached_property
    def core(self) -> Floats:
        """[N] a Block without its experts."""
        return np.array([self.costs.core_s(d, self.rows) for d in self.ground.devices])

    @cached_property
    def expert(self) -> Floats:
        """[N] one touched expert."""
        return np.array([self.costs.expert_s(d, self.rows) for d in self.ground.devices])

    @cached_property
    def work(self) -> Floats:
        """[N] what each expert that a Device holds for others takes of it, a micro-batch."""
        return self.costs.touched(self.rows) / self.ground.prices.num_experts * self.expert

    @cached_property
    def whole(self) -> Floats:
        """[N] a whole Block of its owner."""
        return self.core + self.costs.touched(self.rows) * self.expert

    def ends(self, first: bool, last: bool) -> Floats:
        """[N] embedding and head."""
        return np.array([self.costs.ends_s(d, first, last, self.rows) for d in self.ground.devices])

    @cached_property
    def owner(self) -> Floats:
        """[N, 2^W, K] what a Block takes of its owner; bit i of the second index: the i-th holder has a Stage too."""
        mean = self._one_row() if self.rows <= 1 else self._many_rows()
        mean[..., 0] = self.costs.touched(self.rows) * self.expert[:, None]
        return self.core[:, None, None] + mean

    def _many_rows(self) -> Floats:
        kinds, share = self.kinds, self.costs.touched(self.rows) / self.ground.prices.num_experts
        local = self.ground.prices.num_experts - kinds.away
        longest = (share * local)[None, None, :] * self.expert[:, None, None]
        longest = np.repeat(longest, 2 ** kinds.places.shape[1], axis=1)
        asked = self._asked(self.ground.prices.num_experts, self.rows * self._top_k / self.ground.prices.num_experts, share)
        for i in range(kinds.places.shape[1]):
            longest = np.maximum(
                longest, asked[:, kinds.places[:, i], :, kinds.counts[:, i]][:, :, self._busy(i)].transpose(1, 2, 0)
            )
        return longest

    def _one_row(self) -> Floats:
        """The exact mean over which experts the row chooses."""
        kinds, total = self.kinds, self.ground.prices.num_experts
        width, groups = kinds.places.shape[1], np.stack([total - kinds.away, *kinds.counts.T])
        mean = np.zeros((len(self.ground.devices), 2**width, len(kinds.places)))
        asked = self._asked(self._top_k, 1.0, 1.0)
        ways = np.array([[comb(n, k) for k in range(self._top_k + 1)] for n in range(total + 1)], np.float64)
        for chosen in _shares(width, self._top_k):
            chance = ways[groups, np.array(chosen)[:, None]].prod(axis=0) / comb(total, self._top_k)
            at = np.flatnonzero(chance)
            longest = np.broadcast_to(chosen[0] * self.expert[:, None, None], mean[:, :, at].shape)
            for i, n in enumerate(chosen[1:]):
                if n:
                    longest = np.maximum(longest, asked[:, kinds.places[at, i], :, n][:, :, self._busy(i)].transpose(1, 2, 0))
            mean[:, :, at] += chance[at] * longest
        return mean

    @property
    def _top_k(self) -> int:
        return self.ground.prices.sizes.config.top_k

    def _busy(self, place: int) -> Ints:
        """[2^W] whether the holder at that place has a Stage."""
        return np.arange(2 ** self.kinds.places.shape[1]) >> place & 1

    def _asked(self, most: int, answers: float, work: float) -> Floats:
        """[N, N, 2, most + 1] from asking an owner's others for n experts until the answer; none of it for n = 0 or no other."""
        devices = self.ground.devices
        asked = np.full((len(devices), len(devices), 2, most + 1), -np.inf)
        for o, owner in enumerate(devices):
            for place, h in enumerate(i for i in range(len(devices)) if i != o):
                for busy in (False, True):
                    away = Away(devices[h], 1, busy)
                    none = self.costs.asked_s(owner, away, self.rows, 0, 0.0)
                    each = self.costs.asked_s(owner, away, self.rows, answers, work * self.expert[h]) - none
                    asked[o, place, int(busy), 1:] = none + each * np.arange(1, most + 1)
        return asked


def least_prices(times: Times, split: bool, experts: float) -> tuple[Floats, Floats]:
    """[N] the least that a Block takes of each owner, and the least where experts of it must be elsewhere for want of room."""
    if not split:
        return times.whole, times.whole
    idle = times.owner[:, 0]
    least = idle.min(axis=1)
    if idle.shape[1] == 1:
        return least, np.full(len(least), 1e9)
    an_expert = ((idle[:, 1:] - least[:, None]) / times.kinds.away[1:]).min(axis=1)
    return least, least + experts * an_expert
