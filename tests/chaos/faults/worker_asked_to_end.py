"""SIGTERM to a Worker behind its owner's back: it ends in order, and its owner starts it again."""

from __future__ import annotations

import os
import signal

from schedule import Blow

from faults.swarm_port import Swarm


async def strike(swarm: Swarm, blow: Blow) -> None:
    os.kill(await swarm.worker_pid(blow.of(swarm.rigs)), signal.SIGTERM)
