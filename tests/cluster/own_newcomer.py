"""A Rig that joins and stays until it is ended, in a process of its own: prints `served`, or why it may not.

python own_newcomer.py SWARM NAME HOST STATE_DIR [TORCH]      TORCH: the version that it says it has
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from cluster import joined_rig
from cluster.hardware import Device
from cluster.rig import RigSettings
from cluster.versions import own_versions
from swarm.errors import SwarmError

FAKE = str(Path(__file__).with_name("fake_worker.py"))


async def main(swarm: str, name: str, host: str, state_dir: str, torch: str = "") -> None:
    if torch:
        joined_rig.own_versions = lambda: replace(own_versions(), torch=torch)  # type: ignore[attr-defined]
    settings = RigSettings(
        name=name, devices=(Device("cpu", "cpu", 2**30, 1, "a CPU"),), host=host, key="secret", state_dir=Path(state_dir),
        environment=os.environ, worker_command=(sys.executable, FAKE),
    )  # fmt: skip
    try:
        async with joined_rig.JoinedRig(settings, swarm) as rig:
            running = asyncio.create_task(rig.run(lambda _: print("served", flush=True)))
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
            await asyncio.wait([running])
    except SwarmError as error:
        print(f"{type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
