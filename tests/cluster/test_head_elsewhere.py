"""A head that dies and comes back, at its address or at another one, has the rigs of before again, Workers and all."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from claimed_ports import claimed_port, free_range
from own_rig import FAKE

from cluster.agents import WorkerAgents
from cluster.calling import Calling, call
from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from cluster.hardware import Device
from cluster.joined_rig import JoinedRig
from cluster.rig import RigSettings
from cluster.target import Target
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2_grpc

DEADLINE_S = 90.0


@asynccontextmanager
async def head(port: int, note: Path, key: str = "secret") -> AsyncIterator[Coordinator]:
    """A head without Workers of its own, at a port, that keeps in `note` which rigs it has."""
    credentials = Credentials(key)
    coordinator = Coordinator(Target("nano", "fp32", 1, 64), WorkerAgents(credentials), "head", lambda: 1000.0)
    server = credentials.server()
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(coordinator, f"127.0.0.1:{port}", RayDoor()), server)
    credentials.bind(server, f"127.0.0.1:{port}")
    await server.start()
    await coordinator.start()
    calling = asyncio.create_task(Calling(credentials, note, f"127.0.0.1:{port}").run(coordinator.worker_addresses))
    try:
        yield coordinator
    finally:
        calling.cancel()
        await coordinator.stop()
        await server.stop(None)


@asynccontextmanager
async def joined(swarm: str, folder: Path, said: list[str]) -> AsyncIterator[JoinedRig]:
    """A rig that serves until the block ends."""
    settings = RigSettings(
        name="desk", devices=(Device("cpu", "cpu", 2**30, 1, "a CPU"),), host="127.0.0.1", key="secret", state_dir=folder,
        environment=dict(os.environ), ports=free_range(), worker_command=(sys.executable, FAKE), notify=said.append,
    )  # fmt: skip
    async with JoinedRig(settings, swarm) as rig:
        running = asyncio.create_task(rig.run())
        yield rig
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not there():
            await asyncio.sleep(0.05)


async def until_async(there: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await there():
            await asyncio.sleep(0.05)


async def test_a_rig_follows_its_head_to_another_address_with_its_worker(tmp_path: Path) -> None:
    ports, said, moved = [claimed_port() for _ in range(3)], list[str](), list[str]()
    note, addresses = tmp_path / "rigs.json", [f"127.0.0.1:{port}" for port in ports]
    async with AsyncExitStack() as dying, AsyncExitStack() as stack:
        first = await dying.enter_async_context(head(ports[0], note))
        rig = await stack.enter_async_context(joined(addresses[0], tmp_path, said))
        await until(lambda: first.published.plan and note.exists() and rig.rig_id in note.read_text())
        rig.moved, before = moved.append, first.status()["workers"][0]
        (others := tmp_path / "others.json").write_text(note.read_text())
        await dying.aclose()
        await stack.enter_async_context(head(ports[1], others, key="another"))  # it calls the rig, too, and is not heard
        second = await stack.enter_async_context(head(ports[2], note))
        await until(lambda: second.published.plan)
        after = second.status()["workers"][0]
        assert [after[key] for key in ("name", "pid", "address")] == [before[key] for key in ("name", "pid", "address")]
        assert moved == [addresses[2]] == [rig.swarm] and f"the swarm is at {addresses[2]} now" in said


async def test_a_rig_that_is_well_where_it_is_follows_no_call(tmp_path: Path) -> None:
    ports, said = [claimed_port() for _ in range(2)], list[str]()
    note = tmp_path / "rigs.json"
    async with head(ports[0], note) as first, joined(f"127.0.0.1:{ports[0]}", tmp_path, said) as rig:
        await until(lambda: first.published.plan and note.exists() and rig.rig_id in note.read_text())
        (others := tmp_path / "others.json").write_text(note.read_text())
        async with head(ports[1], others) as second:
            address = rig.workers[0].order.address
            await until_async(lambda: call(rig.credentials, address))
            assert second.status()["rigs"] == [] and len(first.status()["rigs"]) == 1
