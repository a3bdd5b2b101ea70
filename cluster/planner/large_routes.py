"""Two Routes over one swarm: each takes Devices that the other leaves, in turn, as long as both together get better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.planner.clock import Clock
from cluster.planner.large_route import RouteSearch, Stages
from cluster.planner.tables import MIDDLE, Table

TURNS = 1
"""How often the first Route is searched for again beside the second."""


@dataclass(frozen=True)
class TwoRoutes:
    """A pair of Routes that share no Device, for a table of two Routes."""

    table: Table
    in_flight: tuple[int, ...]

    def best(self) -> tuple[Stages, Stages] | None:
        """The best pair found; None where a second copy of the model does not fit."""
        if self.table.caps[MIDDLE].sum() < 2 * self.table.num_blocks:
            return None
        clock = Clock.of(self.table, self.in_flight)
        pairs = [pair for half in self._halves() for pair in self._settled(clock, half)]
        return min(pairs, key=lambda pair: (clock.price(pair)[0], pair), default=None)

    def _halves(self) -> Iterator[list[int]]:
        """Starts for the first Route: all Devices, and every other Rig with the fastest first."""
        devices = self.table.devices
        yield list(range(len(devices)))
        speed: dict[str, float] = {}
        for device, room in zip(devices, self.table.caps[MIDDLE], strict=True):
            speed[device.rig] = speed.get(device.rig, 0.0) + device.speed.bandwidth * bool(room)
        ranked = sorted(speed, key=lambda rig: (-speed[rig], rig))
        chosen = {rig for i, rig in enumerate(ranked) if i % 4 in (0, 3)}
        yield [i for i, d in enumerate(devices) if d.rig in chosen]

    def _settled(self, clock: Clock, half: Sequence[int]) -> Iterator[tuple[Stages, Stages]]:
        first = self._route(clock, half)
        for _ in range(TURNS):
            second = self._route(clock, self._others(first)) if first else None
            if not first or not second:
                return
            yield first, second
            first = self._route(clock, self._others(second))
            if first:
                yield first, second

    def _route(self, clock: Clock, devices: Sequence[int]) -> Stages | None:
        return RouteSearch(clock, tuple(devices), self.table.caps).best()

    def _others(self, taken: Stages) -> list[int]:
        used = {d for d, _ in taken}
        return [d for d in range(len(self.table.devices)) if d not in used]
