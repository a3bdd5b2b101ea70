"""Stages and ExpertShards from the number of Blocks that each seat gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.planner.budget import Prices
from cluster.planner.counts import experts_held, exported
from cluster.planner.seats import Seat
from swarm.plan import ExpertShard, Stage


@dataclass(frozen=True)
class Layout:
    """Who holds what, before it is a Plan."""

    stages: tuple[Stage, ...]
    shards: tuple[ExpertShard, ...]

    @property
    def used(self) -> set[str]:
        return {s.worker for s in self.stages} | {s.worker for s in self.shards}

    @property
    def split(self) -> int:
        """Blocks with experts elsewhere; each costs a round trip a token."""
        return len({s.block for s in self.shards})


class _Spare:
    """Room for experts of others, by seat."""

    def __init__(self, seats: Sequence[Seat], counts: Sequence[int], prices: Prices) -> None:
        self.rigs = {s.worker.name: s.worker.rig for s in seats}
        self.room = {
            seat.worker.name: max(0, experts_held(seat, n, prices) - n * prices.num_experts)
            for seat, n in zip(seats, counts, strict=True)
        }

    def take(self, wanted: int, rig: str | None, besides: str) -> list[tuple[str, int]]:
        """Up to that many places on the fewest Devices (of one Rig, where it is named)."""
        names = [n for n in self.room if n != besides and (rig is None or self.rigs[n] == rig)]
        taken = []
        for name in sorted(names, key=lambda n: -self.room[n]):
            count = min(wanted, self.room[name])
            if count:
                taken.append((name, count))
                self.room[name] -= count
                wanted -= count
        return taken


def lay_out(seats: Sequence[Seat], counts: Sequence[int], prices: Prices, use_all: bool) -> Layout:
    """Contiguous Stages in seat order, and places for the experts that their owners have no room for.

    Args:
        use_all: give every seat that would stay empty some experts, where it has room for one.
    """
    stages, first = [], 0
    for seat, count in zip(seats, counts, strict=True):
        if count:
            stages.append(Stage(seat.worker.name, first, first + count))
            first += count
    spare = _Spare(seats, counts, prices)
    away: dict[int, dict[str, int]] = {}
    homeless = [
        (stage, block, count)
        for stage, seat, n in zip(stages, *_staged(seats, counts), strict=True)
        for block, count in _blocks_away(stage, exported(seat, n, prices), prices)
    ]
    for same_rig in (True, False):
        for stage, block, count in homeless:
            places = away.setdefault(block, {})
            rig = spare.rigs[stage.worker] if same_rig else None
            for name, taken in spare.take(count - sum(places.values()), rig, stage.worker):
                places[name] = places.get(name, 0) + taken
    layout = Layout(tuple(stages), _shards(away, prices))
    return _use_idle(layout, away, spare, prices) if use_all else layout


def _staged(seats: Sequence[Seat], counts: Sequence[int]) -> tuple[list[Seat], list[int]]:
    pairs = [(seat, n) for seat, n in zip(seats, counts, strict=True) if n]
    return [seat for seat, _ in pairs], [n for _, n in pairs]


def _blocks_away(stage: Stage, experts: int, prices: Prices) -> list[tuple[int, int]]:
    """How many experts leave which Blocks: all of one before the next, since each Block with any costs a round trip."""
    blocks = reversed(stage.blocks)
    return [(b, min(prices.num_experts, experts - i)) for b, i in zip(blocks, range(0, experts, prices.num_experts), strict=False)]


def _shards(away: dict[int, dict[str, int]], prices: Prices) -> tuple[ExpertShard, ...]:
    """The owner keeps the lowest expert ids; the others follow in ascending order."""
    shards = []
    for block, places in sorted(away.items()):
        at = prices.num_experts - sum(places.values())
        for name, count in places.items():
            shards.append(ExpertShard(name, block, tuple(range(at, at + count))))
            at += count
    return tuple(shards)


def _use_idle(layout: Layout, away: dict[int, dict[str, int]], spare: _Spare, prices: Prices) -> Layout:
    """Give each Device without work half a Block's experts, or what it has room for; of its own Rig's Stages first."""
    idle = [name for name in spare.room if name not in layout.used and spare.room[name]]
    for name in idle:
        near = [s for s in layout.stages if spare.rigs[s.worker] == spare.rigs[name]] or list(layout.stages)
        blocks = [b for stage in near for b in stage.blocks]
        local = {b: prices.num_experts - sum(away.get(b, {}).values()) for b in blocks}
        block = max(blocks, key=lambda b: (local[b] > prices.num_experts // 2, b in away, b))
        count = min(spare.room[name], max(1, prices.num_experts // 2), local[block])
        if count:
            away.setdefault(block, {})[name] = count
    return Layout(layout.stages, _shards(away, prices))
