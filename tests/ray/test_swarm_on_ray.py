"""Head, Coordinator actor and Agents on a real Ray cluster, with Workers that hold no model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import urllib.error
from pathlib import Path

import psutil
import pytest
from claimed_ports import claimed_range, free_range, range_text
from real_swarms import ROOT, TOKEN, Process, Swarms, runs, shown_actors, until

from cluster.parts import holding
from cluster.ports import Ports
from cluster.ray_node import RayNode, RayNodeSettings
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
MIB = 2**20


async def expect_agents(dashboard: str, names: set[str]) -> None:
    """Wait until the dashboard lists exactly these Agents, by name and by repr."""
    shown: dict[str, str] = {}

    async def look() -> bool:
        shown.clear()
        shown.update(await asyncio.to_thread(shown_actors, dashboard))
        return {n for n in shown if n != "swarm-coordinator"} == names

    async with asyncio.timeout(60):
        while not await look():
            await asyncio.sleep(0.2)
    assert all(shown[name] == name for name in names)
    assert shown["swarm-coordinator"].startswith("coordinator · ")


async def test_the_dashboard_is_the_layer_map_before_and_after_a_join_and_a_leave(swarms: Swarms) -> None:
    head = await swarms.start("head", "attic", free_range(), 1, 64 * MIB)
    dashboard = await head.says("dashboard")
    assert await head.says("epoch") > 0
    await expect_agents(dashboard, {"stage 0 · blocks 0-7 · attic cpu"})
    joined = await swarms.start(await head.says("address"), "desk", free_range(), 1, 64 * MIB)
    assert await joined.says("epoch") > await head.says("epoch")
    names = await _parts(await head.says("address"))
    assert len(names) == 2 and not any("idle" in name for name in names)
    await expect_agents(dashboard, names)
    joined.process.terminate()
    assert await joined.says("ended")
    await expect_agents(dashboard, {"stage 0 · blocks 0-7 · attic cpu"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        await asyncio.to_thread(shown_actors, dashboard, "guess")


async def test_after_sigkill_of_the_head_nothing_is_left_running(swarms: Swarms) -> None:
    head = await swarms.start("head", "attic", free_range(), 2, 64 * MIB)
    await head.says("epoch")
    pids = head.tree()
    assert len(pids) > 10
    os.kill(head.process.pid, signal.SIGKILL)
    await until(lambda: not any(map(runs, pids)))


async def test_a_killed_coordinator_comes_back_and_adopts_the_plan_of_the_last_load_without_a_reload(swarms: Swarms) -> None:
    head = await swarms.start("head", "attic", free_range(), 2, 64 * MIB)
    await head.says("epoch")
    channel = Credentials("secret").channel(await head.says("address"))
    stub = swarm_pb2_grpc.SwarmServiceStub(channel)
    assert [progress.done async for progress in stub.Load(pb.LoadRequest(model="other"))][-1]
    epoch = json.loads((await stub.GetStatus(pb.StatusRequest())).json)["epoch"]
    os.kill(_pid(head, "ray::Coordinator"), signal.SIGKILL)
    await until(lambda: any("again" in str(line.get("note", "")) and "joined" in line["note"] for line in head.said))
    plan = (await stub.GetPlan(pb.PlanRequest(), wait_for_ready=True)).plan
    assert f'"epoch": {epoch}' in plan and '"source": "other"' in plan
    await channel.close(None)


async def test_every_port_that_the_head_listens_on_is_in_its_range(swarms: Swarms) -> None:
    mine = claimed_range()
    head = await swarms.start("head", "attic", range_text(mine), 2, 64 * MIB)
    await head.says("epoch")
    ports = {
        connection.laddr.port
        for pid in head.tree()
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(ports) > 10 and {port for port in ports if port not in mine} == set()


async def test_a_loading_that_is_called_off_ends_on_the_worker_too(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = Path(tempfile.mkdtemp(prefix="swarm-", dir="/tmp"))
    node = RayNode(RayNodeSettings("127.0.0.1", Ports.lay_out(free_range(), 1), TOKEN, folder, "rig-id"), environment)
    try:
        await node.start()
        driver = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("own_agent.py")), node.settings.gcs, "rig-id",
            stdout=asyncio.subprocess.PIPE, env=node.environment,
        )  # fmt: skip
        said, _ = await driver.communicate()
        assert said.decode().split("\n")[:2] == ["attic/cpu: prepare 7", "attic/cpu: called off 7"]
    finally:
        await node.stop()


def _pid(head: Process, name: str) -> int:
    """The process below the head whose command line has that name in it."""
    return next(p for p in head.tree() if name in Path(f"/proc/{p}/cmdline").read_text().partition("\0")[0])


async def _parts(address: str) -> set[str]:
    """What the Workers of the Plan hold, for people."""
    channel = Credentials("secret").channel(address)
    reply = await swarm_pb2_grpc.SwarmServiceStub(channel).GetPlan(pb.PlanRequest())
    await channel.close(None)
    plan = Plan.from_json(reply.plan)
    return {holding(plan, w.name, w.name.replace("/", " ")) for w in plan.workers}
