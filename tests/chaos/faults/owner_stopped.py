"""SIGSTOP of a Rig's owner for a while: its Worker serves on."""

from __future__ import annotations

import asyncio
import os
import signal

from schedule import Blow

from faults.swarm_port import Swarm


async def strike(swarm: Swarm, blow: Blow) -> None:
    pid = swarm.owner_pid(blow.of(swarm.rigs))
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(blow.seconds)
    os.kill(pid, signal.SIGCONT)
