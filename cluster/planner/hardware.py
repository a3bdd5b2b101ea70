"""What the planner knows of the hardware: how fast each Device reads and multiplies, and the links between Rigs.

Measured where a swarm runs, from `cluster.hardware.known_cards` or a rigs file in a dry run; the planner cannot tell which.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from swarm.plan import WorkerSpec


@dataclass(frozen=True)
class Speed:
    """How fast one Device computes in one dtype.

    Args:
        products: (rows, seconds a byte of weight) of the real product at growing row counts, from one row up.
        start_s: seconds to start one kernel for one row, Python included.
        software_s: of its machine's Python: seconds for one frame of one Step to be made, written and read.
        slowed: how many times slower it serves now than it measured; 1 where it does not.
        several_start_s: to start one kernel for several rows; 0: as for one.
    """

    products: tuple[tuple[int, float], ...]
    start_s: float
    software_s: float = 20e-6
    slowed: float = 1.0
    several_start_s: float = 0.0

    def starting_s(self, rows: float) -> float:
        """To start one kernel of a micro-batch of so many rows on average: of fewer than two, some are of one."""
        several = min(1.0, max(0.0, rows - 1))
        return self.slowed * (self.start_s + several * ((self.several_start_s or self.start_s) - self.start_s))

    def seconds_a_byte(self, rows: float) -> float:
        """Of a product with that many rows: linear between what was measured, in proportion to the rows beyond it."""
        rows = max(rows, self.products[0][0])
        place = bisect_right(self.products, rows, key=lambda p: float(p[0]))
        low, low_s = self.products[place - 1]
        if place == len(self.products):
            return self.slowed * low_s * rows / low
        high, high_s = self.products[place]
        return self.slowed * (low_s + (high_s - low_s) * (rows - low) / (high - low))

    @property
    def bandwidth(self) -> float:
        """Bytes of weight a second at one row."""
        return 1 / self.seconds_a_byte(1)

    def flops(self, element_bytes: float) -> float:
        """FLOP/s at the most rows measured, for weights of that many bytes each."""
        rows = self.products[-1][0]
        return 2 * rows / element_bytes / self.seconds_a_byte(rows)

    @classmethod
    def of(cls, bandwidth: float, flops: float, start_s: float, element_bytes: float) -> Speed:
        """The roofline of a Device of which only bandwidth (bytes/s) and matmul rate (FLOP/s) are known.

        Source: Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009.
        """
        rows = [2**i for i in range(10)]
        return cls(tuple((r, max(1 / bandwidth, 2 * r / element_bytes / flops)) for r in rows), start_s)


@dataclass(frozen=True)
class Link:
    """A way between two Workers: round trip of a small message as Hops take it, and bytes a second.

    Args:
        calls_rtt_s: a round trip through gRPC, where Hops do without it; 0: it is `rtt_s`.
    """

    rtt_s: float
    bytes_per_s: float
    calls_rtt_s: float = 0.0

    @property
    def client_s(self) -> float:
        """One way of a client's small message, which goes through gRPC."""
        return (self.calls_rtt_s or self.rtt_s) / 2

    def one_way_s(self, num_bytes: float) -> float:
        return self.rtt_s / 2 + num_bytes / self.bytes_per_s


LAN = Link(0.6e-3, 117e6)
"""Gigabit Ethernet, until it is measured: 0.3 ms there and back, and as much again of gRPC on both ends."""
LOOPBACK = Link(0.4e-3, 1e9)
"""Two Workers of one Rig, until it is measured."""


@dataclass(frozen=True)
class Links:
    """Links between Rigs by their names, in either order; those inside a Rig by its name twice."""

    known: Mapping[tuple[str, str], Link] = field(default_factory=dict)
    default: Link = LAN
    inside: Link = LOOPBACK

    def between(self, a: str, b: str) -> Link:
        found = self.known.get((a, b)) or self.known.get((b, a))
        return found or (self.inside if a == b else self.default)


@dataclass(frozen=True)
class Measured:
    """A Device that can be planned on: where it is, what it holds, how fast it is.

    Args:
        fetch_bytes_per_s: at which it can load weights that it lacks, from disk or over its link.
    """

    spec: WorkerSpec
    speed: Speed
    fetch_bytes_per_s: float = 250e6

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def rig(self) -> str:
        return self.spec.rig


@dataclass(frozen=True)
class Hardware:
    """All Devices that can be planned on, and the links between their Rigs.

    Args:
        client: the Rig that clients talk from; empty: none of them, at the default link from each.
    """

    devices: tuple[Measured, ...]
    links: Links = Links()
    client: str = ""

    def without(self, name: str) -> Hardware:
        return replace(self, devices=tuple(d for d in self.devices if d.name != name))

    def device(self, name: str) -> Measured:
        return next(d for d in self.devices if d.name == name)
