"""A Rig's cache of quantized weights is damaged, as a disk does it, and its Worker killed, so that it reads it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random

from schedule import Blow

from faults.swarm_port import DiskSwarm


async def strike(swarm: DiskSwarm, blow: Blow) -> None:
    rig = blow.of(swarm.rigs)
    pid = await swarm.worker_pid(rig)
    files = sorted(swarm.cache(rig).rglob("*.safetensors"))
    assert files, f"{rig} has nothing in its cache"
    chance = Random(f"{blow.seed}:{blow.number}")
    for file in chance.sample(files, max(1, int(len(files) * blow.amount))):
        if file.stat().st_size:  # else an earlier fault emptied it, and nobody has read it since
            _damage(file, chance)
    os.kill(pid, signal.SIGKILL)


def _damage(file: Path, chance: Random) -> None:
    """Another file in its place: who has the old one mapped keeps that."""
    data = bytearray(file.read_bytes())
    how = chance.choice(("cut", "emptied", "flipped", "header"))
    if how == "flipped":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "header":
        data[:8] = chance.randbytes(8)
    else:
        del data[chance.randrange(len(data)) if how == "cut" else 0 :]
    fresh = file.with_suffix(".damaged")
    fresh.write_bytes(data)
    fresh.replace(file)
