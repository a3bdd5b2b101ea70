"""The least that a Block can take of each Device, with experts of it on whichever other Device is best.

Experts elsewhere are not free: each Device's memory has a price, and what all memory is worth is taken off the bound again
(Lagrange). For any prices that is a valid bound; for good ones fast memory is not promised to everybody at once.

D: Devices   H: those that may hold experts for others   E: experts of a Block
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from cluster.planner.costs import Away, choices
from cluster.planner.hardware import Measured, Speed
from cluster.planner.tables import MIDDLE, Floats, Table, Terms

NEVER_S = 1e6
"""Longer than anything takes, and still a number that can be weighed with 0."""
MS = 1e3
"""The linear program counts in milliseconds, so that the solver's tolerances are small beside them."""


@dataclass(frozen=True)
class Least:
    """Seconds of a micro-batch, or a weighted sum of such.

    Args:
        terms: of everything but Blocks.
        times: of a Block on each Device with 0 to E experts on each of the others, no wait there [D, H, E + 1].
    """

    terms: Terms
    times: Floats

    @classmethod
    def of(cls, table: Table, rows: float) -> Least:
        asked = _asked(table, rows)
        times = np.stack([_times(table, d, asked[i], rows) for i, d in enumerate(table.devices)])
        return cls(table.terms(rows), times)

    def weighed(self, weight: float) -> Least:
        return Least(self.terms.times(weight), weight * self.times)

    def plus(self, other: Least) -> Least:
        return Least(self.terms.plus(other.terms), self.times + other.times)

    def block(self, table: Table, prices: Floats) -> tuple[Floats, Floats]:
        """The least for a Block of each Device, and the least more for one that it has no room for; memory paid for [D], [D]."""
        total = self.times.shape[2] - 1
        away = np.arange(total + 1)
        bought = away * prices[_helpers(table)][None, :, None] + (total - away) * prices[:, None, None]
        cores = prices * table.costs.prices.core / table.costs.prices.expert
        paid = self.times + bought + cores[:, None, None]
        least: Floats = paid.min(axis=(1, 2))
        slope: Floats = ((paid[:, :, 1:] - least[:, None, None]) / away[1:]).min(axis=(1, 2), initial=np.inf).clip(0)
        return least, slope * table.costs.prices.whole / table.costs.prices.expert


def memory_prices(table: Table, terms: Terms, dearest_s: float) -> Floats:
    """What room for one expert is worth on each Device, when the dearest Block anywhere takes `dearest_s` [D]."""
    whole = np.maximum(table.caps[MIDDLE], 1)
    experts = table.costs.prices.whole / table.costs.prices.expert
    if not np.isfinite(dearest_s):
        return np.zeros(len(table.devices))
    gain = whole * (dearest_s - terms.block) - terms.frame - terms.hop.min(axis=0)
    return np.where(table.caps[MIDDLE] > 0, gain.clip(0) / (whole * experts), 0.0)


def fair_prices(table: Table, least: Least) -> Floats:
    """What room for one expert is worth on each Device where all memory is put to its best use, in parts of Blocks [D].

    The prices of a linear program: how many Blocks of each Device have how many experts elsewhere, and how many experts each holds.
    """
    devices, away = len(table.devices), np.arange(least.times.shape[2])
    each, prices = least.times.min(axis=1), table.costs.prices
    stage = least.terms.frame + least.terms.hop.min(axis=0)
    most = np.maximum(table.cores[MIDDLE], 0)
    if not most.any():
        return np.zeros(devices)
    own, number = np.repeat(np.arange(devices), len(away)), np.tile(away, devices)
    of = own == np.arange(devices)[:, None]
    used = of * (prices.core / prices.expert + prices.num_experts - number)
    none, one = np.zeros((devices, devices)), np.eye(devices)
    helping = np.array([max(0, d.spec.memory_bytes - prices.helper) for d in table.devices]) / prices.expert
    more = (prices.fixed(False, False) - prices.helper) / prices.expert
    rows = np.block([[used, more * one, one], [of.astype(float), -np.diag(most), none]])
    equal = np.block([[np.ones(own.size), np.zeros(2 * devices)], [number, np.zeros(devices), -np.ones(devices)]])
    bounds = [(0.0, None)] * own.size + [(0.0, 1.0)] * devices + [(0.0, None)] * devices
    cost = np.concatenate([each.ravel(), stage, np.zeros(devices)])
    right = np.concatenate([helping, np.zeros(devices)])
    found = linprog(MS * cost, rows, right, equal, [table.num_blocks, 0], bounds, method="highs")
    return np.zeros(devices) if found.status else np.maximum(0.0, -found.ineqlin.marginals[:devices]) / MS


def worth_of_all(table: Table, prices: Floats) -> float:
    """What all memory is worth at these prices: no Device has room for more."""
    memory = np.array([d.spec.memory_bytes for d in table.devices]) - table.costs.prices.helper
    return float((prices * memory.clip(0)).sum() / table.costs.prices.expert)


def _helpers(table: Table) -> list[int]:
    """Of Devices that are alike the first two: an owner can ask one that is not itself."""
    twins: dict[tuple[str, Speed, int], list[int]] = {}
    for i, device in enumerate(table.devices):
        twins.setdefault((device.rig, device.speed, device.spec.memory_bytes), []).append(i)
    return sorted(i for alike in twins.values() for i in alike[:2])


def _asked(table: Table, rows: float) -> Floats:
    """How soon each of H answers each Device for one expert; never for itself [D, H]."""
    costs, experts = table.costs, table.costs.prices.num_experts
    helpers = [table.devices[i] for i in _helpers(table)]
    part = costs.touched(rows) / experts if rows > 1 else 1.0
    answers = rows * costs.prices.sizes.config.top_k / experts if rows > 1 else 1.0
    each = [part * costs.expert_s(d, rows) for d in helpers]

    def soonest(owner: Measured) -> list[float]:
        pairs = zip(helpers, each, strict=True)
        return [NEVER_S if d is owner else costs.asked_s(owner, Away(d, 1), max(rows, 1), answers, s) for d, s in pairs]

    return np.array([soonest(owner) for owner in table.devices])


def _times(table: Table, owner: Measured, asked: Floats, rows: float) -> Floats:
    """A Block with 0 to E experts away, the share of each answered as soon as the Device could for one [H, E + 1]."""
    costs, total = table.costs, table.costs.prices.num_experts
    core, each, part = costs.core_s(owner, rows), costs.expert_s(owner, rows), costs.touched(rows) / total
    found = np.empty((len(asked), total + 1))
    found[:, 0] = costs.block_s(owner, (), rows).owner_s
    for away in range(1, total + 1):
        if rows <= 1:
            ways = choices((total - away, away), costs.prices.sizes.config.top_k)
            found[:, away] = core + sum(p * (np.maximum(n * each, asked) if there else n * each) for (n, there), p in ways)
        else:
            found[:, away] = core + np.maximum(part * (total - away) * each, asked)
    return found
