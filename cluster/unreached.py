"""What a machine is told that others cannot dial: both addresses, the port, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.address import is_loopback
from cluster.dial_back import Dialled
from cluster.place import CONTAINER, WSL2_NAT, Place
from swarm.wire.v1 import swarm_pb2 as pb

NO_WAY = ("Network is unreachable", "No route to host")


def why_unreached(rig: str, place: Place, seen_as: str, dialled: Sequence[Dialled], better: str = "") -> str:
    """One sentence for a Rig of that name; empty where all got through.

    Args:
        seen_as: the address that it came from, as the head saw it.
        better: another address of its own at which all others reach it.
    """
    failed = [d for d in dialled if d.why]
    if not failed:
        return ""
    first = failed[0]
    who = f"{first.rig} ({first.address})"
    what = f"port {first.port}: {first.why}{_others(failed)}"
    if better:
        return (
            f"{rig} says it is at {place.host}, where {who} cannot reach it ({what}), but at {better} it can: "
            f"join with --address {better}"
        )
    if place.network == WSL2_NAT:
        return (
            f"{rig} joined from {place.host}, a WSL2 NAT address that {who} cannot reach ({what}): set networkingMode=mirrored "
            f"under [wsl2] in .wslconfig, run wsl --shutdown, allow TCP {place.span} in Windows' firewall, join again"
        )
    if place.network == CONTAINER:
        return (
            f"{rig} joined from {place.host}, an address inside a container that {who} cannot reach ({what}): run the "
            "container with --network host, join again"
        )
    if seen_as not in (place.host, *place.addresses) and not is_loopback(seen_as):
        return (
            f"{rig} says it is at {place.host} and came from {seen_as}, so it is behind a NAT, through which {who} cannot dial "
            f"({what}): bring both into one network or VPN, or forward TCP {place.span} to it and join with --address {seen_as}"
        )
    remedy = _remedy(rig, place, dialled, first)
    return f"{rig} came from {seen_as} and says it is at {place.host}, where {who} cannot reach it ({what}): {remedy}"


def why_no_way(rig: str, host: str, neighbour: pb.Neighbour, why: str) -> str:
    """For a Rig that does not reach the Worker of another."""
    other, at = neighbour.rig_name, neighbour.worker_address
    return (
        f"{rig} ({host}) cannot reach {other} at {at} ({why}): allow TCP port {at.rpartition(':')[2]} and the rest of its --ports "
        f"in {other}'s firewall, or start {other} with an --address that {rig} can dial"
    )


def _remedy(rig: str, place: Place, dialled: Sequence[Dialled], first: Dialled) -> str:
    if first.why in NO_WAY:
        return f"bring {rig} and {first.rig} into one network or VPN, and give the address that {rig} has there with --address"
    allow = f"allow TCP {place.span} in {rig}'s firewall (sudo ufw allow {place.span.replace('-', ':')}/tcp)"
    if any(not d.why for d in dialled if d.rig == first.rig):
        return f"{allow}, not just a part of it; join again"
    return f"{allow}, or give the address that other rigs reach it at with --address"


def _others(failed: Sequence[Dialled]) -> str:
    """What else did not get through, in short."""
    ports = sorted({d.port for d in failed if d.rig == failed[0].rig} - {failed[0].port})
    rigs = list(dict.fromkeys(d.rig for d in failed if d.rig != failed[0].rig))
    more = f", and {len(ports)} more ports" if len(ports) > 1 else f", and port {ports[0]}" if ports else ""
    return more + (f"; nor can {', '.join(rigs)}" if rigs else "")
