"""The network that this machine is on: its addresses, and what keeps others from dialling it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from cluster.address import interfaces, is_loopback
from cluster.place import CONTAINER, WSL2_NAT

ASK_S = 5.0
WSL_NAT_NETWORK = ip_network("172.16.0.0/12")
"""What Windows draws WSL2's NAT networks from."""
CONTAINER_NETWORKS = (ip_network("172.16.0.0/12"), ip_network("10.88.0.0/16"))
"""What Docker and Podman draw their bridges' networks from first."""
VIRTUAL = ("docker", "br-", "veth", "virbr", "vnet", "podman", "cni", "flannel", "lxc", "lxd")
"""How interfaces of bridges to containers and virtual machines begin."""


@dataclass(frozen=True)
class Network:
    """What was found.

    Args:
        interfaces: name and IPv4 address of each.
        kind: `WSL2_NAT`, `CONTAINER`, or empty: nothing is known to keep others out.
    """

    interfaces: tuple[tuple[str, str], ...]
    kind: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that others may dial, real ones first."""
        outer = [(name, address) for name, address in self.interfaces if not is_loopback(address)]
        return tuple(dict.fromkeys(address for _, address in sorted(outer, key=lambda each: is_virtual(each[0]))))


def is_virtual(name: str) -> bool:
    """Whether an interface leads to containers or virtual machines of this machine."""
    return name.startswith(VIRTUAL)


def read_network(root: Path = Path("/"), ask: Callable[[Sequence[str]], str] | None = None) -> Network:
    """Look at this machine.

    Args:
        root: of a running Linux.
        ask: runs a command and answers what it printed; empty where it is not there.
    """
    found = tuple(interfaces())
    return Network(found, _kind(root, ask or run, found))


def run(command: Sequence[str]) -> str:
    """What a command printed; empty where it is not there, fails, or takes too long."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True, errors="replace").stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _kind(root: Path, ask: Callable[[Sequence[str]], str], found: Sequence[tuple[str, str]]) -> str:
    if is_wsl2(root):
        # Older ones have no wslinfo, and no other mode than NAT unless somebody set one.
        mode = ask(["wslinfo", "--networking-mode"]).strip() or ("nat" if any(_is_drawn(a) for _, a in found) else "")
        return WSL2_NAT if mode == "nat" else ""
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        # With --network host it has the machine's own interfaces, bridges and all.
        outer = [(name, address) for name, address in found if not is_loopback(address)]
        own = len(outer) == 1 and any(ip_address(outer[0][1]) in drawn for drawn in CONTAINER_NETWORKS)
        return CONTAINER if own and not is_virtual(outer[0][0]) else ""
    return ""


def is_wsl2(root: Path = Path("/")) -> bool:
    """Source: the kernel that Microsoft builds says so in its release, such as 5.15.90.1-microsoft-standard-WSL2."""
    try:
        return "microsoft" in (root / "proc/sys/kernel/osrelease").read_text(encoding="utf-8").lower()
    except OSError:
        return False


def _is_drawn(address: str) -> bool:
    return ip_address(address) in WSL_NAT_NETWORK
