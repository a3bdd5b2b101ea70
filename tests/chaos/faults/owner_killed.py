"""SIGKILL of a Rig's owner, which takes its Worker with it; after a while the Rig comes back."""

from __future__ import annotations

import asyncio
import signal

from schedule import Blow

from faults.swarm_port import Swarm


async def strike(swarm: Swarm, blow: Blow) -> None:
    rig = blow.of(swarm.guests)
    await swarm.owner_ends(rig, signal.SIGKILL)
    await asyncio.sleep(blow.seconds)
    await swarm.start_rig(rig)
