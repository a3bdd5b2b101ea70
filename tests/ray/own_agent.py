"""An Agent on a real Ray node that has its Worker load, and is called off: prints what the Worker was told.

python own_agent.py GCS RIG_ID
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).parent.parent / "cluster"))
from fake_worker import MODELS, FakeWorker, serve

from cluster.agents import PrepareOrder
from cluster.planner import Hardware, Load, Measured, Speed, make_plan
from cluster.ray_agents import RayAgents
from cluster.ray_node import NAMESPACE
from cluster.roster import Device, DeviceOffer
from swarm.wire.credentials import Credentials

DEADLINE_S = 30.0


async def main(gcs: str, rig_id: str) -> None:
    host = gcs.rpartition(":")[0]
    ray.init(
        address=gcs, namespace=NAMESPACE, log_to_driver=False, configure_logging=False, _node_ip_address=host, _skip_env_hook=True
    )
    credentials, worker = Credentials("secret"), FakeWorker("attic/cpu")
    worker.hold_prepare.clear()
    server, address = await serve(worker, credentials)
    device = Device("attic/cpu", rig_id, "attic", DeviceOffer("cpu", 2**30, address))
    agent = await RayAgents(credentials).appoint(device, "idle · attic cpu")
    hardware = Hardware((Measured(device.spec, Speed.of(50e9, 1e12, 2e-5, 2)),))
    plan = make_plan(MODELS["nano"], hardware, Load(1, 64), 7)
    loading = aiter(agent.prepare(PrepareOrder(plan.to_json(), device.name, False)))
    await anext(loading)
    more = asyncio.ensure_future(anext(loading))
    await asyncio.sleep(0)
    more.cancel()
    async with asyncio.timeout(DEADLINE_S):
        while len(worker.orders) < 2:
            await asyncio.sleep(0.05)
    print(*worker.orders, sep="\n", flush=True)
    await agent.close()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
