"""The way to a swarm and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.dial_back import Dialled
from cluster.doctor.finding import Finding, fine, note, stopped
from cluster.place import Place
from cluster.unreached import why_no_way, why_unreached
from swarm.wire.v1 import swarm_pb2 as pb

ABOUT = "way"
SLOW_S = 0.010
"""A token crosses each Hop once: 3 Hops of this round trip take as long as a card that computes a big model."""
NARROW_BITS = 200e6
"""Bits a second. A chunk of 256 tokens of Mixtral's hidden states is 2 MiB, some 80 ms at this."""


@dataclass(frozen=True)
class Measured:
    """The link to one rig: seconds there and back, bytes a second either way; or why it could not be measured."""

    rig: str
    rtt_s: float = 0.0
    there_bytes_s: float = 0.0
    back_bytes_s: float = 0.0
    trouble: str = ""


@dataclass(frozen=True)
class WayFacts:
    """What came of a visit.

    Args:
        address: of the swarm, host:port.
        name: of this machine.
        trouble: why the swarm could not be talked to; all else is empty then.
        rtt_s: of a question to the door.
        dialled: what the swarm's Rigs found here.
        ways: each other Rig, with why it cannot be dialled from here.
    """

    address: str
    name: str
    place: Place
    trouble: str = ""
    rtt_s: float = 0.0
    seen_as: str = ""
    dialled: tuple[Dialled, ...] = ()
    ways: tuple[tuple[pb.Neighbour, str], ...] = ()
    links: tuple[Measured, ...] = ()


def way_findings(facts: WayFacts) -> Iterator[Finding]:
    if facts.trouble:
        yield stopped(ABOUT, facts.trouble)
        return
    yield fine(ABOUT, f"the swarm at {facts.address} answers in {facts.rtt_s * 1e3:.1f} ms, and knows the key")
    if said := why_unreached(facts.name, facts.place, facts.seen_as, facts.dialled):
        yield stopped(ABOUT, said)
    elif facts.dialled:
        rigs = list(dict.fromkeys(d.rig for d in facts.dialled))
        who = f"{rigs[0]} reaches" if len(rigs) == 1 else f"{', '.join(rigs)} reach"
        yield fine(ABOUT, f"{who} this machine at {facts.place.host}, on all {len(facts.place.ports)} ports that were tried")
    for neighbour, why in facts.ways:
        if why:
            yield stopped(ABOUT, why_no_way(facts.name, facts.place.host, neighbour, why))
    for link in facts.links:
        yield _link(link)


def _link(link: Measured) -> Finding:
    if link.trouble:
        return note(ABOUT, f"the link to {link.rig} could not be measured ({link.trouble})", "try again when nobody talks")
    rates = f"{link.there_bytes_s * 8 / 1e9:.2f} Gbit/s there, {link.back_bytes_s * 8 / 1e9:.2f} back"
    what = f"{link.rig}: {link.rtt_s * 1e3:.1f} ms there and back, {rates}"
    slowest = min(link.there_bytes_s, link.back_bytes_s) * 8
    if link.rtt_s > SLOW_S or slowest < NARROW_BITS:
        return note(ABOUT, f"{what}: slow for a rig that holds layers", "use a cable instead of Wi-Fi, or a faster switch")
    return fine(ABOUT, what)
