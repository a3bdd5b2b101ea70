"""SIGSTOP of a Worker for a while: it neither answers nor ends, and then goes on as if nothing had been."""

from __future__ import annotations

import asyncio
import os
import signal

from schedule import Blow

from faults.swarm_port import Swarm


async def strike(swarm: Swarm, blow: Blow) -> None:
    pid = await swarm.worker_pid(blow.of(swarm.rigs))
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(blow.seconds)
    os.kill(pid, signal.SIGCONT)
