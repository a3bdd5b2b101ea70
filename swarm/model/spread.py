"""Which chosen experts are computed by the holder of a copy: a pure decision, values in, values out.

It changes who computes an expert, never what with: each expert gets the same rows wherever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod

READ_ROWS = 16
"""An expert with one row and one with a few take about as long: reading the weights counts as so many rows, roughly."""
EXACT = 64
"""Up to so many ways to spread experts are all looked at; of more, each expert in turn goes where it ends first."""

Key = tuple[int, int, int, tuple[int, ...]]


def work(rows: int) -> int:
    """What computing one expert takes, in rows."""
    return READ_ROWS + rows


def spread(rows: Mapping[int, int], shards: Mapping[int, int], copies: Mapping[int, int]) -> dict[int, int]:
    """The copies to ask for, so that the longest of local and remote work is least; of equal ways the one that asks least.

    Args:
        rows: each chosen expert's number of rows.
        shards: expert → holder, for experts that only another Worker holds.
        copies: expert → holder, for experts that the owner holds too.

    Returns:
        Expert → holder for the copies that are not to be computed here: none where the owner has one expert to compute.
    """
    movable = sorted((e for e in copies if e in rows and e not in shards), key=lambda e: (-rows[e], e))
    here = [e for e in rows if e not in shards]
    if not movable or len(here) < 2:
        return {}
    busy: dict[int | None, int] = {None: sum(work(rows[e]) for e in here if e not in copies)}
    for expert, holder in shards.items():
        if expert in rows:
            busy[holder] = busy.get(holder, 0) + work(rows[expert])
    choices: list[tuple[int | None, int | None]] = [(None, copies[e]) for e in movable]
    if prod(len(c) for c in choices) > EXACT:
        return _in_turn(movable, rows, copies, busy)
    places = min(product(*choices), key=lambda way: _key(movable, way, rows, busy))
    return {e: holder for e, holder in zip(movable, places, strict=True) if holder is not None}


def _key(movable: list[int], way: tuple[int | None, ...], rows: Mapping[int, int], busy: Mapping[int | None, int]) -> Key:
    """What a way is chosen by: its longest work, how much it asks of others, and then, so that it is one, which experts."""
    load = dict(busy)
    for expert, place in zip(movable, way, strict=True):
        load[place] = load.get(place, 0) + work(rows[expert])
    away = [e for e, place in zip(movable, way, strict=True) if place is not None]
    return max(load.values()), len(away), sum(rows[e] for e in away), tuple(away)


def _in_turn(movable: list[int], rows: Mapping[int, int], copies: Mapping[int, int], busy: dict[int | None, int]) -> dict[int, int]:
    away: dict[int, int] = {}
    for expert in movable:
        holder = copies[expert]
        first = holder if busy.get(holder, 0) < busy[None] else None
        busy[first] = busy.get(first, 0) + work(rows[expert])
        if first is not None:
            away[expert] = first
    return away
