"""What the cost model says of every Device, as arrays: D Devices, in the order they were given, L Blocks.

`Costs` stays the one place that prices; here its answers stand side by side, so that a search can add them up by the thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.planner.budget import Load, Prices
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware, Measured
from swarm.plan import Model

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

MIDDLE, FIRST, LAST, BOTH = 0, 1, 2, 3
"""Which ends of the model a Stage has."""


@dataclass(frozen=True)
class Terms:
    """Seconds of a micro-batch of some rows, or a weighted sum of such.

    Args:
        block: of each Device for one whole Block [D].
        first, last: for the embedding, for the head [D].
        frame: its software around a Stage [D].
        come, leave: from the client to it, and back [D].
        hop: from the one to the other [D, D].
    """

    block: Floats
    first: Floats
    last: Floats
    frame: Floats
    come: Floats
    leave: Floats
    hop: Floats

    def times(self, weight: float) -> Terms:
        return Terms(*(weight * x for x in self._arrays()))

    def plus(self, other: Terms) -> Terms:
        return Terms(*(a + b for a, b in zip(self._arrays(), other._arrays(), strict=True)))

    def taken(self, order: Sequence[int]) -> Terms:
        """Of these Devices, in this order."""
        at = np.array(order, dtype=np.intp)
        return Terms(*(x[at] if x.ndim == 1 else x[np.ix_(at, at)] for x in self._arrays()))

    def _arrays(self) -> tuple[Floats, ...]:
        return (self.block, self.first, self.last, self.frame, self.come, self.leave, self.hop)


@dataclass(frozen=True)
class Table:
    """The Devices of a swarm side by side, for one model and load and a number of Routes.

    Args:
        room: bytes for Blocks beside a Stage's workspace and the ends of MIDDLE, FIRST, LAST and BOTH [4, D].
        rtt, bytes_per_s: of the links between the Devices [D, D].
    """

    devices: tuple[Measured, ...]
    costs: Costs
    load: Load
    routes: int
    room: Counts
    rtt: Floats
    bytes_per_s: Floats

    @classmethod
    def of(cls, model: Model, hardware: Hardware, load: Load, routes: int = 1) -> Table:
        """All Devices of the hardware, by name."""
        devices = tuple(sorted(hardware.devices, key=lambda d: d.name))
        prices = Prices.of(model, load, routes)
        fixed = [prices.fixed(bool(ends & FIRST), bool(ends & LAST)) for ends in range(4)]
        room = [[max(0, d.spec.memory_bytes - f) for d in devices] for f in fixed]
        links = [[hardware.links.between(a.rig, b.rig) for b in devices] for a in devices]
        rtt = np.array([[link.rtt_s for link in row] for row in links])
        rate = np.array([[link.bytes_per_s for link in row] for row in links])
        return cls(devices, Costs(prices, hardware), load, routes, np.array(room, dtype=np.int64), rtt, rate)

    @property
    def names(self) -> list[str]:
        return [d.name for d in self.devices]

    @property
    def num_blocks(self) -> int:
        return self.costs.prices.num_blocks

    @property
    def caps(self) -> Counts:
        """The most whole Blocks that fit beside each of the ends [4, D]."""
        return self.room // self.costs.prices.whole

    @property
    def cores(self) -> Counts:
        """The most Blocks that fit without any of their experts [4, D]."""
        return self.room // self.costs.prices.core

    @property
    def sessions(self) -> float:
        """Sessions of one Route, as `predict` shares them out."""
        return self.load.sessions / self.routes

    @property
    def weights(self) -> tuple[float, float]:
        """What a second of one stream alone counts, and a second between two tokens when all answer."""
        return {"latency": (1.0, 0.0), "throughput": (0.0, 1.0), "balanced": (0.5, 0.5)}[self.load.objective]

    def terms(self, rows: float) -> Terms:
        """Of a micro-batch of that many rows."""
        costs, links, at = self.costs, self.costs.hardware.links, self.costs.hardware.client
        ways = np.array([(links.between(at, d.rig) if at else links.default).client_s for d in self.devices])
        block = {d.speed: costs.block_s(d, (), rows).owner_s for d in {d.speed: d for d in self.devices}.values()}
        asks = np.array([costs.client_s(d, d) for d in self.devices]) - 2 * ways
        return Terms(
            block=np.array([block[d.speed] for d in self.devices]),
            first=np.array([costs.ends_s(d, True, False, rows) for d in self.devices]),
            last=np.array([costs.ends_s(d, False, True, rows) for d in self.devices]),
            frame=np.array([costs.frame_s(d) for d in self.devices]),
            come=ways + asks,
            leave=ways,
            hop=self.rtt / 2 + self.hop_busy(rows),
        )

    def hop_busy(self, rows: float) -> Floats:
        """How long a Hop keeps each link [D, D]."""
        return rows * self.costs.hidden_bytes / self.bytes_per_s
