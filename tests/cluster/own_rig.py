"""A Rig in a process of its own, so that tests can kill it: prints `served` and the process ids of its Workers.

python own_rig.py SWARM STATE_DIR PORTS COUNT
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from cluster.hardware import Device
from cluster.joined_rig import JoinedRig
from cluster.rig import RigSettings

FAKE = str(Path(__file__).with_name("fake_worker.py"))


async def main(swarm: str, state_dir: str, ports: str, count: int) -> None:
    devices = tuple(Device(f"cpu:{n}", "cpu", 2**30, 1, "a CPU") for n in range(count))
    settings = RigSettings(
        name="gaming-pc", devices=devices, host="127.0.0.1", key="secret", state_dir=Path(state_dir), environment=os.environ,
        ports=ports, spread=True, worker_command=(sys.executable, FAKE), notify=lambda m: print(m, file=sys.stderr, flush=True),
    )  # fmt: skip
    async with JoinedRig(settings, swarm) as rig:
        running = asyncio.create_task(rig.run(lambda _: print("served", *(w.pid for w in rig.workers), flush=True)))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        await asyncio.wait([running])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
