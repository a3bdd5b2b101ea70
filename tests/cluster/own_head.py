"""A door without Ray, with one Worker that does nothing, in a process of its own: prints `ready`.

python own_head.py HOST PORT
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace

from fake_worker import FakeWorker, serve
from memory_swarm import NEED, TARGET, offer

from cluster.agents import WorkerAgents
from cluster.announcement import Announcement, announced
from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2_grpc


async def main(host: str, port: int) -> None:
    key = Credentials("secret")
    workers, _ = await serve(FakeWorker("attic/cpu"), key, f"{host}:{port + 31}")
    coordinator = Coordinator(TARGET, WorkerAgents(key), "attic", lambda: 1000.0)
    server = key.server()
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(coordinator, f"{host}:{port}", RayDoor()), server)
    key.bind(server, f"0.0.0.0:{port}")
    await server.start()
    await coordinator.start()
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    here = offer("attic", 2 * NEED)
    await coordinator.join(replace(here, devices=(replace(here.devices[0], worker_address=f"{host}:{port + 31}"),)))
    async with announced(Announcement("attic", f"{host}:{port}", key.fingerprint), print):
        print("ready", flush=True)
        await done.wait()
    await coordinator.stop()
    await server.stop(None)
    await workers.stop(None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
