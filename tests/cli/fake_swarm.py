"""The swarm's door and a Worker, answering what a test tells them to, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from swarm.config import ModelConfig
from swarm.errors import SwarmError
from swarm.plan import ExpertShard, Model, Plan, Route, Stage, WorkerSpec
from swarm.wire.credentials import Credentials
from swarm.wire.status import to_rpc
from swarm.wire.v1 import swarm_pb2, swarm_pb2_grpc, worker_pb2, worker_pb2_grpc

GIB = 2**30
CONFIG = ModelConfig(
    architecture="MixtralForCausalLM", hidden=16, ffn=16, num_blocks=4, num_heads=2, num_kv_heads=1, head_dim=8, num_experts=4,
    top_k=2, vocab=32, max_positions=128, norm_eps=1e-5, rope_theta=1e6, tied_head=False, dtype="fp32", bos_id=1, eos_ids=(2,),
)  # fmt: skip

WORKER = {
    "name": "attic/cpu", "rig": "attic", "address": "127.0.0.1:1", "blocks": [0, 4], "experts": {}, "sessions": 0, "alive": True,
    "memory": {"total_bytes": GIB, "free_bytes": 0},
}  # fmt: skip
RIG = {"id": "a", "name": "attic"}
"""What every status says of each, unless a test says otherwise."""


def plan_for(addresses: dict[str, str]) -> Plan:
    """Two Workers: w0 has Blocks 0 and 1, w1 the rest, and holds experts 2 and 3 of Block 0 for w0."""
    workers = tuple(WorkerSpec(name, "attic", "cpu", address, GIB, 10, 20, 30) for name, address in addresses.items())
    model = Model("tiny", "tiny", "0" * 8, "fp32", CONFIG)
    stages = (Stage("w0", 0, 2), Stage("w1", 2, 4))
    return Plan(1, model, workers, (Route(stages),), (ExpertShard("w1", 0, (2, 3)),), sessions=1, context=64)


class Door(swarm_pb2_grpc.SwarmServiceServicer):
    """A swarm that shows one status and loads any model, or refuses to."""

    def __init__(self, document: dict[str, Any], refusal: SwarmError | None = None) -> None:
        self.document = document
        self.refusal = refusal
        self.loads: list[swarm_pb2.LoadRequest] = []

    async def GetStatus(self, request: swarm_pb2.StatusRequest, context: Any) -> swarm_pb2.StatusReply:
        lists = {"workers": WORKER, "rigs": RIG}
        whole = {key: [least | each for each in self.document[key]] for key, least in lists.items() if key in self.document}
        return swarm_pb2.StatusReply(json=json.dumps(self.document | whole))

    async def Load(self, request: swarm_pb2.LoadRequest, context: Any) -> AsyncIterator[swarm_pb2.Progress]:
        self.loads.append(request)
        if self.refusal:
            await context.abort(*to_rpc(self.refusal))
        yield swarm_pb2.Progress(message="reading", fraction=0.5)
        yield swarm_pb2.Progress(message=f"{request.model} serves", fraction=1.0, done=True)


class OneWorker(worker_pb2_grpc.WorkerServiceServicer):
    """A Worker that says one thing of itself."""

    def __init__(self, status: worker_pb2.WorkerStatus) -> None:
        self.status = status

    async def Status(self, request: worker_pb2.WorkerStatusRequest, context: Any) -> worker_pb2.WorkerStatus:
        return self.status


@asynccontextmanager
async def listening(servicer: Door | OneWorker, key: str = "") -> AsyncIterator[str]:
    """host:port where the servicer answers."""
    credentials = Credentials(key)
    server = credentials.server()
    if isinstance(servicer, Door):
        swarm_pb2_grpc.add_SwarmServiceServicer_to_server(servicer, server)
    else:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)
    port = credentials.bind(server, "127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
