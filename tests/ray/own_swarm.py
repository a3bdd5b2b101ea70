"""The head of a swarm, or a Rig that joins one, in a process of its own: prints JSON lines about itself.

python own_swarm.py head|SWARM NAME HOST PORTS STATE_DIR DEVICES MEMORY_BYTES
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from cluster.hardware import Device
from cluster.head_rig import HeadRig
from cluster.joined_rig import JoinedRig
from cluster.rig import Rig, RigSettings
from cluster.target import Target

FAKE = str(Path(__file__).parent.parent / "cluster" / "fake_worker.py")
KEY, TOKEN = "secret", "5eed" * 16


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def main(swarm: str, name: str, host: str, ports: str, state_dir: str, count: int, memory_bytes: int) -> None:
    settings = RigSettings(
        name=name,
        devices=tuple(Device(f"cpu:{n}", "cpu", memory_bytes, 1, "a CPU") for n in range(count)),
        host=host, key=KEY, state_dir=Path(state_dir), environment=os.environ, ports=ports, spread=True,
        worker_command=(sys.executable, FAKE), notify=lambda message: say(note=message),
    )  # fmt: skip
    made: Rig = HeadRig(settings, Target("nano", "fp32", 1, 64), TOKEN) if swarm == "head" else JoinedRig(settings, swarm)
    async with made as rig:
        if isinstance(rig, HeadRig):
            say(address=rig.address, dashboard=rig.dashboard)
        running = asyncio.create_task(rig.run(lambda reply: say(epoch=reply.epoch, message=reply.message)))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        await asyncio.wait([running])
    say(ended=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6], int(sys.argv[6]), int(sys.argv[7])))
