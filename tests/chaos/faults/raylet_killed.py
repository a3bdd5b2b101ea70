"""SIGKILL of a Rig's raylet: its owner starts Ray again, and the Workers do not notice."""

from __future__ import annotations

import os
import signal

from schedule import Blow

from faults.swarm_port import RaySwarm


async def strike(swarm: RaySwarm, blow: Blow) -> None:
    rig = blow.of(swarm.rigs)
    os.kill(swarm.raylet_pid(rig), signal.SIGKILL)
    await swarm.ray_is_back(rig)
