"""The order of Devices along the model, and the room that each has there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cluster.planner.budget import Prices
from swarm.plan import WorkerSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Seat:
    """One Device at its place along the model.

    Args:
        stage_room: bytes for Blocks where it has a Stage there; 0 where it cannot have one.
        helper_room: bytes for experts where it has none.
        end: it is counted with the embedding or the head, so it must have a Stage.
    """

    worker: WorkerSpec
    stage_room: int
    helper_room: int
    end: bool = False


def seat(stages: Sequence[WorkerSpec], helpers: Sequence[WorkerSpec], prices: Prices) -> list[Seat]:
    """Seats for `stages` in that order, the first with the embedding and the last with the head, then for `helpers`."""
    seats = []
    for index, worker in enumerate(stages):
        first, last = index == 0, index == len(stages) - 1
        room = max(0, worker.memory_bytes - prices.fixed(first, last))
        seats.append(Seat(worker, room, worker.memory_bytes - prices.helper, first or last))
    return seats + [Seat(w, 0, w.memory_bytes - prices.helper) for w in helpers]


def arrange(workers: Sequence[WorkerSpec], before: Sequence[str]) -> list[WorkerSpec]:
    """Devices of one Rig as neighbours, the largest Rigs at the ends, which carry the embedding and the head.

    Args:
        before: names of Workers in the order of the Stages they had; they keep that order as far as Rigs allow.
    """
    rigs = by_rig(workers)
    if any(w.name in before for w in workers):
        at = {name: i for i, name in enumerate(before)}
        rigs = [sorted(rig, key=lambda w: at.get(w.name, len(at))) for rig in rigs]
        return [w for rig in sorted(rigs, key=lambda rig: at.get(rig[0].name, len(at))) for w in rig]
    if len(rigs) == 1:
        return _second_last(rigs[0])
    *front, back = _second_last(rigs)
    return [w for rig in front for w in rig] + back[::-1]


def by_rig(workers: Sequence[WorkerSpec]) -> list[list[WorkerSpec]]:
    """Devices of each Rig, largest first; the Rig with the most memory first."""
    rigs: dict[str, list[WorkerSpec]] = {}
    for worker in largest_first(workers):
        rigs.setdefault(worker.rig, []).append(worker)
    return sorted(rigs.values(), key=lambda rig: (-sum(w.memory_bytes for w in rig), rig[0].rig))


def largest_first(workers: Sequence[WorkerSpec]) -> list[WorkerSpec]:
    return sorted(workers, key=lambda w: (-w.memory_bytes, w.name))


def subsets(workers: Sequence[WorkerSpec], size: int) -> Iterator[list[WorkerSpec]]:
    """Sets of `size` Devices to try: of one Rig, then of ever more Rigs, at last the largest wherever they are."""
    rigs = sorted((rig[:size] for rig in by_rig(workers)), key=lambda rig: -sum(w.memory_bytes for w in rig))
    yield from (rig for rig in rigs if len(rig) == size)
    for count in range(2, len(rigs)):
        pool = [w for rig in rigs[:count] for w in rig]
        if len(pool) >= size:
            yield largest_first(pool)[:size]
    yield largest_first(workers)[:size]


def _second_last(items: list[T]) -> list[T]:
    return items[:1] + items[2:] + items[1:2]
