"""Devices in a given order: how many Blocks each of them gets.

Exact, by dynamic programming over (last Device with a Stage, Blocks covered): D·L·(D + L) steps for D Devices and L Blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cluster.planner.tables import BOTH, FIRST, LAST, MIDDLE, Counts, Flags, Floats, Terms

Stages = list[tuple[int, int]]
"""(place of the Device in the order, its Blocks)."""


@dataclass(frozen=True)
class Ordered:
    """What it costs to give Devices Blocks, in the order of the arrays.

    Args:
        terms: what is added up.
        caps: the most Blocks of each Device, with neither end, the first, the last, both [4, D].
        hop_allowed: Hops that may be used [D, D].
        extra: what each Block costs on each Device beside it [D, L]; such as what it takes to load it.
    """

    terms: Terms
    caps: Counts
    hop_allowed: Flags
    extra: Floats

    @cached_property
    def count(self) -> Counts:
        """Blocks from a to b [L + 1, L + 1]."""
        at = np.arange(self.extra.shape[1] + 1)
        return np.asarray(at[None, :] - at[:, None], np.int64)


def best_stages(problem: Ordered) -> Stages | None:
    """The Stages with the least sum; None where the Blocks do not fit."""
    num_devices, num_blocks = problem.extra.shape
    reached = np.full((num_devices, num_blocks + 1), np.inf)
    entered = np.full((num_devices, num_blocks + 1), np.inf)
    hops = np.where(problem.hop_allowed, problem.terms.hop, np.inf)
    for j in range(num_devices):
        if j:
            entered[j] = (reached[:j] + hops[:j, j, None]).min(axis=0)
        entered[j, 0] = 0.0
        reached[j] = (entered[j][:, None] + _stage_s(problem, j)).min(axis=0)
    end = int(np.argmin(reached[:, num_blocks]))
    return _back(problem, reached, entered, hops, end) if np.isfinite(reached[end, num_blocks]) else None


def _stage_s(problem: Ordered, j: int) -> Floats:
    """Of Blocks a to b on the Device [a, b]; infinite where it cannot have them."""
    terms, num_blocks = problem.terms, problem.extra.shape[1]
    along = np.concatenate(([0.0], np.cumsum(terms.block[j] + problem.extra[j])))
    cost: Floats = along[None, :] - along[:, None] + terms.frame[j]
    cost[0] += terms.first[j] + terms.come[j]
    cost[:, num_blocks] += terms.last[j] + terms.leave[j]
    most = np.full_like(problem.count, problem.caps[MIDDLE, j])
    most[0], most[:, num_blocks] = problem.caps[FIRST, j], problem.caps[LAST, j]
    most[0, num_blocks] = problem.caps[BOTH, j]
    cost[(problem.count < 1) | (problem.count > most)] = np.inf
    return cost


def _back(problem: Ordered, reached: Floats, entered: Floats, hops: Floats, j: int) -> Stages:
    stages: Stages = []
    b = reached.shape[1] - 1
    while b:
        a = int(np.argmin(entered[j] + _stage_s(problem, j)[:, b]))
        stages.append((j, b - a))
        b = a
        j = int(np.argmin(reached[:j, a] + hops[:j, j])) if a else j
    return stages[::-1]


def capped(caps: Counts, terms: Terms, most_s: float) -> Counts:
    """Caps under which no Device is busy for longer than `most_s` with a micro-batch [4, D]."""
    ends = np.stack([0 * terms.first, terms.first, terms.last, terms.first + terms.last])
    room = np.floor((most_s - ends) / terms.block * (1 + 1e-12)).clip(0, caps.max(initial=0))
    return np.minimum(caps, room.astype(np.int64))
