"""Which way a Route goes: seats that are taken, put in the order with the shortest Hops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from cluster.planner.large_relaxed import Seats
from cluster.planner.tables import FIRST, LAST, Floats, Table


def in_order(seats: Seats, table: Table, hop: Floats) -> list[int]:
    """The Devices of the seats: FIRST in front, LAST at the end, Rig by Rig in between.

    Args:
        hop: seconds from the one Device to the other [D, D].
    """
    first = next(d for d, _, ends in seats if ends & FIRST)
    last = next(d for d, _, ends in seats if ends & LAST)
    rigs: dict[str, list[int]] = {}
    for device in sorted(d for d, _, _ in seats if d not in (first, last)):
        rigs.setdefault(table.devices[device].rig, []).append(device)
    front = [first, *rigs.pop(table.devices[first].rig, [])]
    if first == last:
        return front
    back = [*rigs.pop(table.devices[last].rig, []), last]
    return [*front, *(d for rig in _chained(front[-1], list(rigs.values()), back[0], hop) for d in rig), *back]


def _chained(start: int, rigs: list[list[int]], end: int, hop: Floats) -> list[list[int]]:
    """Nearest neighbours first, then whatever stretch is better the other way round is turned (2-opt)."""
    chain: list[list[int]] = []
    at = start
    while rigs:
        nearest = min(rigs, key=lambda rig: (float(hop[at, rig[0]]), rig[0]))
        rigs.remove(nearest)
        chain.append(nearest)
        at = nearest[-1]
    return _turned(start, chain, end, hop)


def _turned(start: int, chain: list[list[int]], end: int, hop: Floats) -> list[list[int]]:
    better = True
    while better:
        better = False
        for i in range(len(chain)):
            for j in range(i + 1, len(chain)):
                before, after = chain[i - 1][-1] if i else start, chain[j + 1][0] if j + 1 < len(chain) else end
                now = hop[before, chain[i][0]] + hop[chain[j][-1], after]
                then = hop[before, chain[j][-1]] + hop[chain[i][0], after]
                if then < now * (1 - 1e-9):
                    chain[i : j + 1] = [rig[::-1] for rig in reversed(chain[i : j + 1])]
                    better = True
    return chain


def with_idle(order: Sequence[int], devices: Sequence[int], hop: Floats) -> list[int]:
    """The same order with further Devices in it, each where the way round grows least; neither becomes an end."""
    order = list(order)
    for device in devices:
        detours = [float(hop[a, device] + hop[device, b] - hop[a, b]) for a, b in pairwise(order)]
        place = min(range(len(detours)), key=lambda i: (detours[i], i), default=0)
        order.insert(place + 1, device)
    return order
