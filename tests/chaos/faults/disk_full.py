"""A Rig's disk is full to the last byte, its cache is gone, and its Worker is killed; after a while there is room again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

from schedule import Blow

from faults.swarm_port import DiskSwarm


async def strike(swarm: DiskSwarm, blow: Blow) -> None:
    rig = blow.of(swarm.rigs)
    pid = await swarm.worker_pid(rig)
    shutil.rmtree(swarm.cache(rig))
    swarm.fill_disk(rig)
    os.kill(pid, signal.SIGKILL)
    await swarm.whole()
    await asyncio.sleep(blow.seconds)
    swarm.empty_disk(rig)
    os.kill(await swarm.worker_pid(rig), signal.SIGKILL)  # whose next start fills the cache again
