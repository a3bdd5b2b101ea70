"""SIGKILL of the Rig that started the swarm, and of all of Ray with it; after a while it comes back at the same address."""

from __future__ import annotations

import asyncio
import signal

from schedule import Blow

from faults.swarm_port import RaySwarm


async def strike(swarm: RaySwarm, blow: Blow) -> None:
    await swarm.owner_ends(swarm.head, signal.SIGKILL)
    await asyncio.sleep(blow.seconds)
    await swarm.start_rig(swarm.head)
