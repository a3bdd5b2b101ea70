"""SIGKILL of the Coordinator; another one starts after a while, and finds what there is."""

from __future__ import annotations

import asyncio

from schedule import Blow

from faults.swarm_port import Swarm


async def strike(swarm: Swarm, blow: Blow) -> None:
    await swarm.coordinator_ends()
    await asyncio.sleep(blow.seconds)
    await swarm.start_coordinator()
