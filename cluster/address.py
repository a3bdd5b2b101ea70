"""Which address of this machine others can dial."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

from swarm.errors import Unreachable

ANYWHERE = "10.255.255.255"
DIAL_S = 3.0
SIOCGIFADDR = 0x8915
"""Asks for an interface's IPv4 address (man 7 netdevice)."""


def is_loopback(host: str) -> bool:
    """Whether only this machine itself can dial that: 127.0.0.0/8, ::1 or localhost."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_address(toward: str = ANYWHERE) -> str:
    """The address that this machine uses toward another (no packet is sent); 127.0.0.1 where it has no other.

    A name that means this machine (Debian's /etc/hosts says 127.0.1.1 for its own) is no reason to be reached from here only.
    """
    if is_loopback(toward):
        return "127.0.0.1"
    addresses = (_toward(toward), _toward(ANYWHERE), *(address for _, address in interfaces()))
    return next((address for address in addresses if address and not is_loopback(address)), "127.0.0.1")


def _toward(host: str) -> str:
    """The address that packets to a host would come from; empty where there is no way to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def interfaces() -> Iterator[tuple[str, str]]:
    """Name and IPv4 address of each interface: a network without a way out has no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                yield name, socket.inet_ntoa(found[20:24])


def bind_host(host: str) -> str:
    """Where to listen for those who dial `host`: on loopback for loopback, else on all interfaces (the address may be a NAT's)."""
    return host if is_loopback(host) else "0.0.0.0"


async def check_own(host: str, port: int) -> None:
    """Raise Unreachable unless this machine reaches itself at `host`: its Workers and Ray dial each other there."""
    mine = secrets.token_bytes(16)

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(mine)
        writer.close()

    try:
        async with await asyncio.start_server(answer, bind_host(host), port), asyncio.timeout(DIAL_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                if await reader.read(len(mine)) != mine:
                    raise OSError(0, "somebody else answers there")
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        # asyncio puts its own words into `strerror`; resolving a name has negative numbers, and good words.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error) or "no answer"
        raise Unreachable(
            f"this machine does not reach itself at {host}:{port} ({why}): give one of its own addresses with --address, "
            "one that the other rigs can dial too"
        ) from None
