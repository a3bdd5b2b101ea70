"""A machine that wants to join is dialled by every Rig that it will have to talk to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cluster.place import Place
from swarm.errors import SwarmError

DIAL_S = 3.0


@dataclass(frozen=True)
class Dialler:
    """One Rig that dials.

    Args:
        rig: its name.
        address: where it is, for messages.
        dial: host and ports in, why each of them cannot be reached out. Raises SwarmError where the Rig does not answer.
    """

    rig: str
    address: str
    dial: Callable[[str, Sequence[int]], Awaitable[list[str]]]


@dataclass(frozen=True)
class Dialled:
    """What one Rig found at one port; `why` is empty where it got through."""

    rig: str
    address: str
    port: int
    why: str


async def dial_back(place: Place, diallers: Sequence[Dialler]) -> list[Dialled]:
    """What each Rig finds at each port of a Place. A Rig that does not answer itself is none that must be talked to."""
    found = await asyncio.gather(*(_dials(place.host, place.ports, each) for each in diallers)) if place.ports else []
    return [dialled for each in found for dialled in each]


async def better_host(place: Place, diallers: Sequence[Dialler]) -> str:
    """The first other address of that machine at which all Rigs reach all its ports; empty where there is none."""
    others = [address for address in place.addresses if address != place.host]
    found = await asyncio.gather(*(dial_back(Place(host, place.ports, place.span), diallers) for host in others))
    return next((host for host, all_ in zip(others, found, strict=True) if all_ and not any(d.why for d in all_)), "")


async def _dials(host: str, ports: Sequence[int], dialler: Dialler) -> list[Dialled]:
    try:
        whys = await dialler.dial(host, ports)
    except SwarmError:
        return []
    return [Dialled(dialler.rig, dialler.address, port, why) for port, why in zip(ports, whys, strict=False)]
