"""Which address of this machine others can dial."""

from __future__ import annotations

import socket

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def own_address(toward: str = "10.255.255.255") -> str:
    """The address that this machine uses toward another (no packet is sent); 127.0.0.1 where there is no network."""
    if toward in LOOPBACK:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((toward, 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def bind_host(host: str) -> str:
    """Where to listen for those who dial `host`: on loopback for loopback, else on all interfaces (the address may be a NAT's)."""
    return host if host in LOOPBACK else "0.0.0.0"
