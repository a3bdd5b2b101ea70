"""Which experts a row chooses, as Workers counted it: how many of them fall into each group, and with what chance.

The K experts of a row are taken as drawn independently of each other, each in proportion to its count, given that they
differ: a set has a chance in proportion to the product of its counts. Equal counts make it uniform. That experts are
chosen together more often than their counts say is not known here: Workers count experts, not pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise

ENOUGH_ROWS = 128
"""Rows that must have been routed in a Block before its counts say anything."""


def enough(counts: Sequence[int], top_k: int) -> bool:
    """Whether the counts of a Block's experts say anything about it."""
    return sum(counts) >= ENOUGH_ROWS * top_k and sum(count > 0 for count in counts) >= top_k


def group_chances(groups: Sequence[Sequence[int]], top_k: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """(number chosen from each group, its chance), for all that can be.

    Args:
        groups: the counts of the experts of each group; together all of the Block, at least `top_k` above 0.
    """
    largest = max(count for group in groups for count in group)
    sums = [_set_sums([count / largest for count in group], top_k) for group in groups]
    ways = [(numbers, weight) for numbers, weight in _splits(sums, top_k) if weight]
    total = sum(weight for _, weight in ways)
    for numbers, weight in ways:
        yield numbers, weight / total


def _set_sums(weights: Sequence[float], most: int) -> list[float]:
    """Entry n: the sum over all sets of n of the products of their weights (elementary symmetric polynomials)."""
    return reduce(_with_one_more, weights, [1.0] + [0.0] * most)


def _with_one_more(sums: list[float], weight: float) -> list[float]:
    return [sums[0], *(now + weight * less for less, now in pairwise(sums))]


def _splits(sums: Sequence[Sequence[float]], left: int) -> Iterator[tuple[tuple[int, ...], float]]:
    if len(sums) == 1:
        yield (left,), sums[0][left]
        return
    for n in range(left + 1):
        if sums[0][n]:
            for others, weight in _splits(sums[1:], left - n):
                yield (n, *others), sums[0][n] * weight
