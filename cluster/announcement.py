"""A swarm announces itself on the local network, over mDNS (RFC 6762, 6763), and is found there without its address.

What is announced is no secret: a name, the door's address, and the fingerprint of the authority that the key is. Anybody on the
network can announce anything: who joins proves with the key that it is the swarm it means, and the swarm proves it over TLS.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from cluster.address import own_address

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
SERVICE = "_swarm-moe._tcp.local."
LISTEN_S = 3.0
"""How long swarms may take to answer; most do within a quarter of a second."""
MOST_NAME = 40
_ADDRESS = re.compile(r"[\w.\-]{1,253}:\d{1,5}|\[[0-9a-fA-F:.]{2,45}\]:\d{1,5}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Announcement:
    """One swarm: its head's name, its door's host:port, and its authority's fingerprint (64 hexadecimal digits)."""

    name: str
    address: str
    fingerprint: str

    @property
    def text(self) -> dict[str, str]:
        return {"name": self.name, "address": self.address, "fingerprint": self.fingerprint}

    @classmethod
    def read(cls, text: dict[bytes, bytes | None]) -> Announcement | None:
        """From what the network says; None where it makes no sense. Nothing that a terminal would obey is kept."""
        said = {key: (text.get(key.encode()) or b"").decode("utf-8", "replace") for key in ("name", "address", "fingerprint")}
        if not _ADDRESS.fullmatch(said["address"]) or not _FINGERPRINT.fullmatch(said["fingerprint"]):
            return None
        name = "".join(c for c in said["name"] if c.isprintable())[:MOST_NAME]
        return cls(name or "unnamed", said["address"], said["fingerprint"])


@asynccontextmanager
async def announced(what: Announcement, notify: Callable[[str], None]) -> AsyncIterator[None]:
    """Answer whoever looks for swarms, until the end. A network that takes no such packets is told once, and is no failure."""
    from zeroconf import Error, IPVersion
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

    host, _, port = what.address.rpartition(":")
    label = f"{re.sub(r'[^A-Za-z0-9-]', '-', what.name)[:MOST_NAME]}-{what.fingerprint[:8]}"
    info = AsyncServiceInfo(
        SERVICE,
        f"{label}.{SERVICE}",
        port=int(port),
        properties=dict(what.text),
        addresses=[_packed(host)],
        server=f"{label}.local.",
    )
    zeroconf = None
    try:
        zeroconf = AsyncZeroconf(ip_version=IPVersion.V4Only)
        await zeroconf.async_register_service(info, allow_name_change=True)
    except (OSError, Error) as error:
        notify(f"the swarm does not announce itself on this network ({error}): others join with its address")
    try:
        yield
    finally:
        if zeroconf is not None:
            await zeroconf.async_close()


async def find(seconds: float = LISTEN_S) -> list[Announcement]:
    """The swarms that announce themselves here, by name. Raises OSError where there is no network."""
    from zeroconf import DNSQuestionType, IPVersion
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

    heard: dict[str, AsyncServiceInfo] = {}

    def hear(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change.name == "Removed":
            heard.pop(name, None)
        else:
            heard[name] = AsyncServiceInfo(service_type, name)

    zeroconf = AsyncZeroconf(ip_version=IPVersion.V4Only)
    try:
        ask = DNSQuestionType.QM  # answered to all: another mDNS program here would take what is answered to this machine alone
        browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[hear], question_type=ask)
        await asyncio.sleep(seconds)
        await browser.async_cancel()
        infos = list(heard.values())
        await asyncio.gather(*(info.async_request(zeroconf.zeroconf, seconds * 1e3, ask) for info in infos))
    finally:
        await zeroconf.async_close()
    found = (Announcement.read(info.properties) for info in infos)
    return sorted({each for each in found if each}, key=lambda each: (each.name, each.address))


def _packed(host: str) -> bytes:
    """The IPv4 address for the record; the text has what others dial."""
    with suppress(ValueError):
        return IPv4Address(host).packed
    return socket.inet_aton(own_address())
