"""A Rig without Ray in a process of its own, with real Workers and a warm one: prints `served` each time that it is in.

python rig_process.py < order.json        see `RigOrder`; SIGTERM: it leaves, and ends
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.hardware import Device
from cluster.joined_rig import JoinedRig
from cluster.rig import RigSettings


@dataclass(frozen=True)
class RigOrder:
    """Args:
    host: what others dial.
    bind: where it listens, if that is elsewhere: there is a relay between.
    swarm: host:port of the door.
    cache: a folder of quantized weights; empty: none.
    """

    name: str
    host: str
    bind: str
    swarm: str
    key: str
    state_dir: str
    memory_bytes: int
    ports: str
    cache: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


async def main(order: RigOrder) -> None:
    settings = RigSettings(
        name=order.name, devices=(Device("cpu", "cpu", order.memory_bytes, 1, "a CPU"),), host=order.host, key=order.key,
        state_dir=Path(order.state_dir), environment=os.environ, ports=order.ports, spread=True,
        spare=True, cache=Path(order.cache) if order.cache else None, notify=lambda m: print(m, file=sys.stderr, flush=True),
    )  # fmt: skip
    rig = JoinedRig(settings, order.swarm)
    rig.bind = order.bind or rig.bind
    async with rig:
        running = asyncio.create_task(rig.run(lambda _: print("served", flush=True)))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        await asyncio.wait([running])


if __name__ == "__main__":
    asyncio.run(main(RigOrder(**json.load(sys.stdin))))
