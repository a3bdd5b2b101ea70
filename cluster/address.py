"""Which address of this machine others can dial."""

from __future__ import annotations

import asyncio
import os
import socket

from swarm.errors import Unreachable

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DIAL_S = 3.0


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


async def check_own(host: str, port: int) -> None:
    """Raise Unreachable unless this machine reaches itself at `host`: its Workers and Ray dial each other there."""
    try:
        async with (
            await asyncio.start_server(lambda _, writer: writer.close(), bind_host(host), port),
            asyncio.timeout(DIAL_S),
        ):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
    except (OSError, TimeoutError) as error:
        # asyncio puts its own words into `strerror`; resolving a name has negative numbers, and good words.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error or "no answer")
        raise Unreachable(
            f"this machine does not reach itself at {host}:{port} ({why}): give one of its own addresses with --address, "
            "one that the other rigs can dial too"
        ) from None
