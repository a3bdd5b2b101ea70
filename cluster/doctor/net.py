"""Under which address others would dial this machine, and what stands in their way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.address import is_loopback
from cluster.doctor.finding import Finding, fine, note, stop
from cluster.network import Network, is_virtual
from cluster.place import CONTAINER, WSL2_NAT

ABOUT = "network"


@dataclass(frozen=True)
class NetFacts:
    """The network, the address that this rig would give, and whether others were asked to dial it (`way` says what they found)."""

    network: Network
    host: str
    span: str
    proven: bool = False


def net_findings(facts: NetFacts) -> Iterator[Finding]:
    network, host = facts.network, facts.host
    name = next((name for name, address in network.interfaces if address == host), "")
    if is_loopback(host) and not facts.proven:
        yield stop(
            ABOUT, f"only this machine itself reaches {host}", "connect it to the network of the other rigs, or give --address"
        )
    elif name and is_virtual(name):
        yield stop(
            ABOUT, f"{host} is the address of {name}, a bridge to containers of this machine", "give another one with --address"
        )
    elif network.kind == WSL2_NAT and not facts.proven:
        remedy = (
            "set networkingMode=mirrored under [wsl2] in .wslconfig, run wsl --shutdown, and "
            f"allow TCP {facts.span} in Windows' firewall"
        )
        yield stop(ABOUT, f"{host} is a WSL2 NAT address, which other machines cannot reach", remedy)
    elif network.kind == CONTAINER and not facts.proven:
        yield note(
            ABOUT, f"{host} is an address inside a container, which other machines may not reach", "run it with --network host"
        )
    else:
        yield fine(ABOUT, f"others dial {host}" + (f" ({name})" if name else ""))
    yield from _more(facts)


def _more(facts: NetFacts) -> Iterator[Finding]:
    outer = [(name, at) for name, at in facts.network.interfaces if not is_loopback(at) and at != facts.host]
    real = [f"{at} ({name})" for name, at in outer if not is_virtual(name)]
    bridges = [name for name, _ in outer if is_virtual(name)]
    if real:
        yield note(
            ABOUT, f"there are other addresses, too: {', '.join(real)}", "where those are the fast ones, give one with --address"
        )
    if bridges:
        yield fine(ABOUT, f"{', '.join(bridges)}: for containers of this machine, not used")
