"""The swarm's one range of ports, so that one firewall rule does: who listens where in it."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from swarm.errors import PortInUse, UsageError

RAY_PORTS = (
    "gcs",
    "node_manager",
    "object_manager",
    "dashboard",
    "agent_http",
    "agent_grpc",
    "metrics",
    "runtime_env",
    "client_server",
    "dashboard_metrics",
)
SPARE_RAY_WORKERS = 6
"""Ray worker processes beside one Agent a Device: the Coordinator, the driver that makes it, and Agents that replace others."""


DEFAULT_PORTS = "7700-7731"


def parse_ports(text: str) -> range:
    """The ports of `7700-7731`, both ends included. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text.strip(), re.ASCII)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise UsageError(
            f"--ports {text} is no range: write the first and the last port, between 1024 and 65535, such as {DEFAULT_PORTS}"
        )
    return range(first, last + 1)


@dataclass(frozen=True)
class Ports:
    """A range laid out.

    Args:
        door: the swarm's own gRPC; while a Rig knocks, the port that it is dialled back on.
        ray: Ray's own services by name, see `RAY_PORTS`.
        ray_workers: for Ray's worker processes (the Coordinator and the Agents).
        workers: one for each of this Rig's Workers.
        text: where a Decoder for others listens.
    """

    door: int
    ray: dict[str, int]
    ray_workers: tuple[int, ...]
    workers: tuple[int, ...]
    text: int

    @classmethod
    def lay_out(cls, text: str, devices: int) -> Ports:
        """Lay `7700-7731` out for so many Devices. Raises UsageError where it is no range, or too small."""
        span = parse_ports(text)
        first = span[0]
        fixed = 2 + len(RAY_PORTS)
        need = fixed + SPARE_RAY_WORKERS + 2 * devices
        if len(span) < need:
            enough = f"{first}-{first + need - 1}"
            raise UsageError(f"--ports {text} has {len(span)} ports and {devices} devices need {need}: use --ports {enough}")
        rest = span[fixed:]
        return cls(
            door=first,
            ray=dict(zip(RAY_PORTS, range(first + 1, first + fixed - 1), strict=True)),
            ray_workers=tuple(rest[: len(rest) - devices]),
            workers=tuple(rest[len(rest) - devices :]),
            text=first + fixed - 1,
        )

    @property
    def all(self) -> tuple[int, ...]:
        """Every port of the range that something listens on."""
        return (self.door, *self.ray.values(), self.text, *self.ray_workers, *self.workers)

    def check_free(self, host: str) -> None:
        """Raise PortInUse, naming the port, unless nobody listens on any of them at a host."""
        for port, why in self.busy(host):
            raise PortInUse(f"cannot listen on {host}:{port} ({why}): end what uses it, or choose another range with --ports")

    def busy(self, host: str) -> list[tuple[int, str]]:
        """The ports that cannot be listened on at a host, and why."""
        tried = [(port, _why_not(host, port)) for port in self.all]
        return [(port, why) for port, why in tried if why]


def _why_not(host: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""
