"""Two Agents, one after the other, of a Worker that serves more at each look: prints how often it was looked at.

python own_metrics.py GCS RIG_ID

Each line on standard input is an order: an empty one replaces the Agent, the end of input ends all.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import ray

sys.path.insert(0, str(Path(__file__).parent.parent / "cluster"))
from test_metrics import PLAN

from cluster.ray_agents import RayAgents
from cluster.ray_node import NAMESPACE
from cluster.roster import Device, DeviceOffer
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1 import worker_pb2_grpc


class Growing(worker_pb2_grpc.WorkerServiceServicer):
    """The last Worker of `PLAN`; at each look it has served 10 rows more, all of which chose expert 1 of Block 1."""

    looks = 0

    async def Status(self, request: pb.WorkerStatusRequest, context: Any) -> pb.WorkerStatus:
        self.looks += 1
        return pb.WorkerStatus(
            name="desk/cuda:0", pid=7, epoch=5, first=1, end=2, plan=PLAN.to_json(), weights_bytes=400, kv_bytes=200,
            kv_used_bytes=50, sessions=1, tokens=10 * self.looks, busy_s=self.looks, up_s=5 * self.looks, micro_batches=self.looks,
            choices=[pb.BlockChoices(block=1, counts=[0, 10 * self.looks])],
            hops=pb.Work(count=self.looks, seconds=0.002 * self.looks),
        )  # fmt: skip


async def main(gcs: str, rig_id: str) -> None:
    host = gcs.rpartition(":")[0]
    ray.init(
        address=gcs, namespace=NAMESPACE, log_to_driver=False, configure_logging=False, _node_ip_address=host, _skip_env_hook=True
    )
    credentials, worker = Credentials("secret"), Growing()
    server = credentials.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(worker, server)
    port = credentials.bind(server, "127.0.0.1:0")
    await server.start()
    device = Device("desk/cuda:0", rig_id, "desk", DeviceOffer("cuda:0", 2**30, f"127.0.0.1:{port}"))
    agents = RayAgents(credentials)
    agent = await agents.appoint(device, "stage 0 · block 1 · desk cuda:0")
    while await asyncio.to_thread(sys.stdin.readline):
        before, agent = agent, await agents.appoint(device, "stage 1 · block 1 · desk cuda:0")
        await before.close()
        print(json.dumps(worker.looks), flush=True)
    print(json.dumps(worker.looks), flush=True)
    await agent.close()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
