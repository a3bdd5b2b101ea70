"""Where a Rig can be dialled, as it says itself."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.wire.dial import MOST_PORTS
from swarm.wire.v1 import swarm_pb2 as pb

MOST_ADDRESSES = 16
WSL2_NAT = "wsl2-nat"
CONTAINER = "container"


@dataclass(frozen=True)
class Place:
    """Where others shall dial a Rig.

    Args:
        host: the address that it gives.
        ports: those that are dialled to see whether it can be reached.
        span: its whole range, such as `7700-7731`, for messages.
        network: `WSL2_NAT` or `CONTAINER` where that keeps others out; empty where nothing is known.
        addresses: all that its interfaces have.
    """

    host: str
    ports: tuple[int, ...]
    span: str
    network: str = ""
    addresses: tuple[str, ...] = ()

    @classmethod
    def read(cls, said: pb.Place) -> Place:
        """From the wire; no more of it than is dialled."""
        ports = tuple(port for port in said.ports if 0 < port < 65536)[:MOST_PORTS]
        return cls(said.host, ports, said.range, said.network, tuple(said.addresses)[:MOST_ADDRESSES])

    def to_wire(self) -> pb.Place:
        return pb.Place(host=self.host, ports=self.ports, range=self.span, network=self.network, addresses=self.addresses)
