"""The tightest fit there is: which Devices have Stages, of how many Blocks, so that most experts find a place.

Exact, by dynamic programming over the Devices: what counts of those decided so far is only how many Blocks they hold, which ends
of the model, and for how many experts they leave room, since an expert may sit on any Device. Devices x Blocks^2 steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.planner.budget import Prices
from cluster.planner.counts import missing_bytes
from cluster.planner.seats import Seat, largest_first, seat
from swarm.plan import WorkerSpec

MIDDLE, FIRST, LAST = 0, 1, 2
BOTH = FIRST | LAST


class _Role(NamedTuple):
    """What one Device may do: a Stage of `blocks` (0: none) with that end of the model, and room for `experts`."""

    end: int
    blocks: int
    experts: int


class _Partial(NamedTuple):
    """The best of all ways to come to a number of Blocks and certain ends."""

    experts: int
    roles: tuple[_Role, ...]


@dataclass(frozen=True)
class Packing:
    """Seats and their Blocks; a Plan only where `missing_bytes` is 0."""

    seats: list[Seat]
    counts: list[int]
    missing_bytes: int
    """That much more on one of its Stages would be enough."""


def pack(devices: Sequence[WorkerSpec], prices: Prices) -> Packing | None:
    """The packing that lacks least; None where not even one Block finds a place between both ends of the model."""
    ordered = largest_first(devices)
    ways = [*_several(ordered, prices), *_alone(ordered, prices)]
    packings = (_packing(ordered, roles, prices) for roles in ways)
    return min(packings, key=lambda p: (p.missing_bytes, sum(n > 0 for n in p.counts)), default=None)


def _several(devices: Sequence[WorkerSpec], prices: Prices) -> Iterator[tuple[_Role, ...]]:
    """For each number of Blocks, the roles of all Devices that leave room for most experts, the ends on two of them."""
    best = {(MIDDLE, 0): _Partial(0, ())}
    for worker in devices:
        roles = list(_roles(worker, prices))
        grown: dict[tuple[int, int], _Partial] = {}
        for (ends, blocks), partial in best.items():
            for role in roles:
                if ends & role.end or blocks + role.blocks > prices.num_blocks:
                    continue
                key, experts = (ends | role.end, blocks + role.blocks), partial.experts + role.experts
                if key not in grown or experts > grown[key].experts:
                    grown[key] = _Partial(experts, (*partial.roles, role))
        best = grown
    return (partial.roles for (ends, _), partial in best.items() if ends == BOTH)


def _roles(worker: WorkerSpec, prices: Prices) -> Iterator[_Role]:
    yield _helping(worker, prices)
    for end in (MIDDLE, FIRST, LAST):
        yield from _staged(worker, end, prices)


def _staged(worker: WorkerSpec, end: int, prices: Prices) -> Iterator[_Role]:
    room = worker.memory_bytes - prices.fixed(bool(end & FIRST), bool(end & LAST))
    for blocks in range(1, min(prices.num_blocks, room // prices.core) + 1):
        yield _Role(end, blocks, (room - blocks * prices.core) // prices.expert)


def _helping(worker: WorkerSpec, prices: Prices) -> _Role:
    return _Role(MIDDLE, 0, max(0, worker.memory_bytes - prices.helper) // prices.expert)


def _alone(devices: Sequence[WorkerSpec], prices: Prices) -> Iterator[tuple[_Role, ...]]:
    """One Device with both ends, all others with experts only."""
    for sole in devices:
        for role in _staged(sole, BOTH, prices):
            yield tuple(role if w is sole else _helping(w, prices) for w in devices)


def _packing(devices: Sequence[WorkerSpec], roles: Sequence[_Role], prices: Prices) -> Packing:
    pairs = list(zip(devices, roles, strict=True))
    first = next(w for w, role in pairs if role.end & FIRST)
    last = next(w for w, role in pairs if role.end & LAST)
    middle = [w for w, role in pairs if role.blocks and role.end == MIDDLE]
    middle.sort(key=lambda w: (w.rig != first.rig, w.rig == last.rig, w.rig))
    stages = [first, *middle] + [last] * (last is not first)
    blocks = {w.name: role.blocks for w, role in pairs}
    seats = seat(stages, [w for w, role in pairs if not role.blocks], prices)
    counts = [blocks[s.worker.name] for s in seats]
    return Packing(seats, counts, missing_bytes(seats, counts, prices))
