"""Which Blocks of a Stage are of which kind, and which of their experts are where, so that least lacks beside what is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cluster.planner.choice import Kind
from cluster.planner.held import Held, expert, whole
from swarm.errors import PlacementError
from swarm.plan import Stage

UNUSUAL = 1e-3
"""Bytes that it takes to leave the usual order: the owner keeps the lowest experts, Blocks have kinds in the Choice's order."""


@dataclass(frozen=True)
class BlockNames:
    """One Block with ids: (Worker, experts) of those that its owner does not hold; the Worker with its standby copy, if any."""

    block: int
    away: tuple[tuple[str, tuple[int, ...]], ...]
    standby: str
    price: float
    """Bytes to load, of the owner and all others."""


@dataclass(frozen=True)
class Taken:
    """What the Blocks of other Routes leave no room for.

    Args:
        owners: Block → the Workers whose Stages have it, on any Route.
        experts: (Worker, Block) → experts of it that the Worker holds for another Route.
    """

    owners: Mapping[int, Set[str]]
    experts: Mapping[tuple[str, int], Set[int]] = field(default_factory=dict)


def name_blocks(stage: Stage, kinds: Sequence[Kind], before: Held, taken: Taken) -> list[BlockNames]:
    """Names for the Blocks of a Stage, a kind each, with least to load.

    Raises:
        PlacementError: its kinds and the other Routes leave no way.
    """
    different = list(dict.fromkeys(kinds))
    if len(different) == 1 and different[0] == Kind():
        return [BlockNames(b, (), "", 0.0) for b in stage.blocks]
    ways = [[_named(b, kind, stage.worker, before, taken) for kind in different] for b in stage.blocks]
    prices = np.array(
        [[ways[i][different.index(kind)].price + UNUSUAL * (i != j) for j, kind in enumerate(kinds)] for i in range(len(kinds))]
    )
    places = _assigned(prices, stage)
    return [ways[i][different.index(kinds[j])] for i, j in enumerate(places)]


def _named(block: int, kind: Kind, owner: str, before: Held, taken: Taken) -> BlockNames:
    """A Block of that kind; its price is infinite where there is no way."""
    away, price = _experts(block, kind, owner, before, taken)
    if kind.standby:
        price += before.missing_bytes(kind.standby, whole(block, before.sizes.config.num_experts))
    if taken.owners[block] & {kind.standby, *(worker for worker, _ in kind.away)}:
        price = np.inf
    return BlockNames(block, away, kind.standby, price)


def _experts(
    block: int, kind: Kind, owner: str, before: Held, taken: Taken
) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], float]:
    """Which experts each Worker of a kind holds, and the bytes that it and the owner lack for them."""
    total = before.sizes.config.num_experts
    holders = [owner] * (total - sum(n for _, n in kind.away)) + [worker for worker, n in kind.away for _ in range(n)]
    each = {w: [_price(block, e, w, before, taken) for e in range(total)] for w in set(holders)}
    prices = np.array([each[w] for w in holders]).T + UNUSUAL * (1 - np.eye(total))
    try:
        rows, places = linear_sum_assignment(prices)
    except ValueError:
        return (), np.inf
    at = {int(e): holders[place] for e, place in zip(rows, places, strict=True)}
    away = tuple((worker, tuple(e for e in range(total) if at[e] == worker)) for worker, _ in kind.away)
    return away, float(prices[rows, places].sum())


def _price(block: int, number: int, worker: str, before: Held, taken: Taken) -> float:
    if number in taken.experts.get((worker, block), ()):
        return np.inf
    return float(before.missing_bytes(worker, [expert(block, number)]))


def _assigned(prices: NDArray[np.float64], stage: Stage) -> list[int]:
    try:
        return [int(place) for place in linear_sum_assignment(prices)[1]]
    except ValueError:
        what = f"blocks {stage.first}-{stage.end - 1} on {stage.worker}"
        raise PlacementError(f"two Routes ask one worker for the same experts of {what}: plan for one Route") from None
