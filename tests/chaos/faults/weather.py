"""A Rig's links for a while: cut, late, narrow; streams that break in the middle of a piece, answers that never come."""

from __future__ import annotations

import asyncio

from links import CLEAR
from relay_process import Weather
from schedule import Blow

from faults.swarm_port import LinkedSwarm

MBIT = 1e6 / 8
LATE_S = (0.01, 0.2)


async def cut(swarm: LinkedSwarm, blow: Blow) -> None:
    await _for_a_while(swarm, blow, Weather(cut=True))


async def late(swarm: LinkedSwarm, blow: Blow) -> None:
    """10 to 200 ms each way into the Rig, and back."""
    least, most = LATE_S
    await _for_a_while(swarm, blow, Weather(delay_s=least + (most - least) * blow.amount))


async def narrow(swarm: LinkedSwarm, blow: Blow) -> None:
    """1 Mbit/s."""
    await _for_a_while(swarm, blow, Weather(bytes_per_s=MBIT))


async def torn(swarm: LinkedSwarm, blow: Blow) -> None:
    """Every connection breaks after half of its next piece, and so do new ones."""
    await _for_a_while(swarm, blow, Weather(torn=True))


async def deaf(swarm: LinkedSwarm, blow: Blow) -> None:
    """Half of each stream is dropped: what the Rig's servers answer."""
    await _for_a_while(swarm, blow, Weather(deaf=True))


async def _for_a_while(swarm: LinkedSwarm, blow: Blow, weather: Weather) -> None:
    rig = blow.of(swarm.rigs)
    await swarm.links.change(rig, weather)
    await asyncio.sleep(blow.seconds)
    await swarm.links.change(rig, CLEAR)
