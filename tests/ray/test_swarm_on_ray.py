"""Head, Coordinator actor and Agents on a real Ray cluster, with Workers that hold no model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.error
from collections.abc import AsyncIterator
from contextlib import suppress

import psutil
import pytest
import pytest_asyncio
from claimed_ports import claimed_range, free_range, range_text
from real_swarms import Process, Swarms, runs, shown_actors, until

from cluster.parts import holding
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]
MIB = 2**20


@pytest.fixture(scope="module")
def ports() -> range:
    return claimed_range()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def head(tmp_path_factory: pytest.TempPathFactory, ports: range) -> AsyncIterator[Process]:
    """One with two Devices, that serves."""
    swarms = Swarms(tmp_path_factory.mktemp("head"))
    head = await swarms.start("head", "attic", range_text(ports), 2, 64 * MIB)
    await head.says("epoch")
    yield head
    await swarms.close()


async def expect_agents(dashboard: str, names: set[str]) -> None:
    """Wait until the dashboard lists exactly these Agents, by name and by repr."""
    shown: dict[str, str] = {}

    async def look() -> bool:
        shown.clear()
        shown.update(await asyncio.to_thread(shown_actors, dashboard))
        return {n for n in shown if n != "swarm-coordinator"} == names

    async with asyncio.timeout(150):
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


async def test_every_port_that_the_head_listens_on_is_in_its_range(head: Process, ports: range) -> None:
    listening = set()
    for pid in head.tree():
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            connections = psutil.Process(pid).net_connections("tcp")
            listening |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    assert len(listening) > 10 and not [port for port in listening if port not in ports]


async def test_a_killed_coordinator_comes_back_and_adopts_the_plan_of_the_last_load_without_a_reload(head: Process) -> None:
    channel = Credentials("secret").channel(await head.says("address"))
    stub = swarm_pb2_grpc.SwarmServiceStub(channel)
    assert [progress.done async for progress in stub.Load(pb.LoadRequest(model="other"))][-1]
    epoch = json.loads((await stub.GetStatus(pb.StatusRequest())).json)["epoch"]
    os.kill(_pid(head, "ray::Coordinator"), signal.SIGKILL)
    await until(lambda: any("again" in str(line.get("note", "")) and "joined" in line["note"] for line in head.said))
    plan = (await stub.GetPlan(pb.PlanRequest(), wait_for_ready=True)).plan
    assert f'"epoch": {epoch}' in plan and '"source": "other"' in plan
    await channel.close(None)


async def test_after_sigkill_of_the_head_nothing_is_left_running(head: Process) -> None:
    pids = head.tree()
    assert len(pids) > 10
    os.kill(head.process.pid, signal.SIGKILL)
    await until(lambda: not any(map(runs, pids)))


def _pid(head: Process, name: str) -> int:
    """The process below the head whose command line has that name in it."""
    for pid in head.tree():
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            if name in "".join(psutil.Process(pid).cmdline()[:1]):
                return pid
    raise AssertionError(f"no {name} below the head")


async def _parts(address: str) -> set[str]:
    """What the Workers of the Plan hold, for people."""
    channel = Credentials("secret").channel(address)
    reply = await swarm_pb2_grpc.SwarmServiceStub(channel).GetPlan(pb.PlanRequest())
    await channel.close(None)
    plan = Plan.from_json(reply.plan)
    return {holding(plan, w.name, w.name.replace("/", " ")) for w in plan.workers}
