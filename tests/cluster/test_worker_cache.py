"""A Rig's Worker keeps what it quantized where its Rig says."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from plans import free_addresses, plan_of

from cluster.worker_process import WorkerOrder, WorkerProcess
from swarm.weights.cache.folder import kept
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub
from swarm.worker.holdings import parts_of


async def never(address: str) -> None:
    raise AssertionError("it was not started again")


async def test_a_rigs_worker_keeps_what_it_quantized_where_its_rig_says(tmp_path: Path) -> None:
    address = free_addresses(["w0"])["w0"]
    plan = plan_of([8], dtype="int4", addresses={"w0": address})
    command, memory = (sys.executable, "-m", "swarm.worker"), plan.worker("w0").memory_bytes
    order = WorkerOrder(command, "w0", "cpu", 1, memory, address, address, "k", tmp_path / "log", os.environ)
    worker = WorkerProcess(replace(order, cache=tmp_path / "cache"), never, lambda said: None)
    channel = Credentials("k").channel(address)
    try:
        await worker.start()
        async for _ in WorkerServiceStub(channel).Prepare(pb.PrepareRequest(plan=plan.to_json(), name="w0")):
            pass
    finally:
        await channel.close(None)
        await worker.stop()
    assert [k.parts for k in kept(tmp_path / "cache")] == [len(parts_of(plan, "w0"))]
