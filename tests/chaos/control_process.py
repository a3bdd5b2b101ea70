"""The control plane without Ray, in a process of its own: a Coordinator behind its door.

python control_process.py < settings.json        CoordinatorSettings; prints `ready`, and serves until it is killed
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path

from cluster.agents import WorkerAgents
from cluster.coordinator import Coordinator
from cluster.coordinator_settings import CoordinatorSettings
from cluster.door import Door, RayDoor
from cluster.memo import Memo
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2_grpc


async def main(settings: CoordinatorSettings) -> None:
    """As `cluster.actor` does it."""
    credentials, memo = Credentials(settings.key, "coordinator"), Memo(Path(settings.memo))
    target = (memo.read() if settings.restarted else None) or settings.target
    memo.write(target)
    book = memo.measurements(forget=not settings.restarted)
    agents = WorkerAgents(credentials)
    coordinator = Coordinator(target, agents, settings.head, time.time, memo.write, settings.restarted, book)
    server = credentials.server()
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(coordinator, settings.address, RayDoor()), server)
    credentials.bind(server, settings.listen)
    await coordinator.start()
    await server.start()
    print("ready", flush=True)
    await coordinator.failed()


if __name__ == "__main__":
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(main(CoordinatorSettings.from_json(sys.stdin.read())))
