"""A Rig and its Worker processes, with a real door and without Ray."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from claimed_ports import claimed_range, free_range
from own_rig import FAKE

from cluster.agents import WorkerAgents
from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from cluster.hardware import Device
from cluster.identity import Identity
from cluster.joined_rig import JoinedRig
from cluster.rig import RigSettings
from cluster.target import Target
from swarm.errors import DeviceError, NoSwarm, PortInUse, Unreachable, WrongKey
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc

DEADLINE_S = 90.0
ROOT = Path(__file__).parent.parent.parent


class DoorThatMayFail(Door):
    """A door whose Coordinator dies under the next so many calls to join, or hangs.

    Args:
        hangs: it counts Rigs in and does not answer them.
        leaving: what it says to those who leave, and how long it is silent after each word; None: what is true.
    """

    deaths = 0
    hangs = False
    leaving: tuple[tuple[str, float], ...] | None = None

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:
        if self.deaths:
            self.deaths -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        reply = await super().Join(request, context)
        if self.hangs:
            await asyncio.Event().wait()
        return reply

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> AsyncIterator[pb.Progress]:
        if self.leaving is None:
            async for progress in super().Leave(request, context):
                yield progress
        for message, silence_s in self.leaving or ():
            yield pb.Progress(message=message)
            await asyncio.sleep(silence_s)


class Swarm:
    """A Coordinator behind its door, and Rigs in processes of their own."""

    def __init__(self, coordinator: Coordinator, door: DoorThatMayFail, address: str, state_dir: Path) -> None:
        self.coordinator, self.door, self.address, self.state_dir = coordinator, door, address, state_dir
        self.rigs: list[asyncio.subprocess.Process] = []

    async def start_rig(self, count: int = 2) -> tuple[asyncio.subprocess.Process, list[int]]:
        """A Rig that serves, and its Workers' process ids."""
        rig = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("own_rig.py")),
            self.address, str(self.state_dir), free_range(), str(count),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.rigs.append(rig)
        assert rig.stdout and rig.stderr
        words = (await asyncio.wait_for(rig.stdout.readline(), DEADLINE_S)).split()
        if words[:1] != [b"served"]:
            raise AssertionError((await rig.stderr.read()).decode())
        return rig, [int(pid) for pid in words[1:]]

    def settings(self, device: str = "cpu") -> RigSettings:
        return RigSettings(
            name="here", devices=(Device(device, device, 2**30, 1, "a CPU"),), host="127.0.0.1", key="secret",
            state_dir=self.state_dir, environment=dict(os.environ), ports=free_range(), worker_command=(sys.executable, FAKE),
        )  # fmt: skip


@asynccontextmanager
async def opened(port: int, tmp_path: Path, ray: RayDoor) -> AsyncIterator[Swarm]:
    """A swarm at a port (0: any), until the block ends."""
    credentials = Credentials("secret")
    coordinator = Coordinator(Target("nano", "fp32", 1, 64), WorkerAgents(credentials), "head", lambda: 1000.0)
    server = credentials.server()
    door = DoorThatMayFail(coordinator, "127.0.0.1:0", ray)
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(door, server)
    port = credentials.bind(server, f"127.0.0.1:{port}")
    await server.start()
    await coordinator.start()
    found = Swarm(coordinator, door, f"127.0.0.1:{port}", tmp_path / "state")
    yield found
    for rig in found.rigs:
        if rig.returncode is None:
            rig.kill()
        await rig.wait()
    await coordinator.stop()
    await server.stop(None)


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with opened(0, tmp_path, RayDoor()) as found:
        yield found


async def test_a_rig_brings_its_workers_and_leaves_politely(swarm: Swarm) -> None:
    rig, pids = await swarm.start_rig()
    workers = swarm.coordinator.status()["workers"]
    assert [w["name"] for w in workers] == ["gaming-pc/cpu:0", "gaming-pc/cpu:1"]
    assert [w["pid"] for w in workers] == pids and all(w["alive"] for w in workers)
    rig.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(rig.wait(), DEADLINE_S) == 0
    assert swarm.coordinator.status()["workers"] == [] and not any(runs(pid) for pid in pids)


async def test_a_swarm_that_goes_away_under_the_first_join_is_asked_again(swarm: Swarm) -> None:
    swarm.door.deaths = 2
    _, pids = await swarm.start_rig(1)
    assert [w["pid"] for w in swarm.coordinator.status()["workers"]] == pids


async def test_a_rig_that_is_ended_while_it_is_counted_in_leaves_all_the_same(swarm: Swarm) -> None:
    swarm.door.hangs = True
    async with JoinedRig(swarm.settings(), swarm.address) as rig:
        joining = asyncio.create_task(rig.run())
        await until(lambda: swarm.coordinator.published.plan)
        joining.cancel()
        await asyncio.wait([joining])
    assert swarm.coordinator.status()["rigs"] == []


@pytest.mark.parametrize(
    ("leaving", "says"),
    [
        (tuple((f"w{n} loads", 0.5) for n in range(8)), "w7 loads"),
        ((("w0 loads", 60.0), ("w1 loads", 0.0)), "said nothing"),
    ],
    ids=["slow", "stuck"],
)
async def test_leaving_may_take_long_as_long_as_something_happens(
    swarm: Swarm, leaving: tuple[tuple[str, float], ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.membership.STILL_S", 3.0)
    swarm.door.leaving = leaving
    said: list[str] = []
    async with JoinedRig(replace(swarm.settings(), notify=said.append), swarm.address) as rig:
        await rig.serve()
    assert says in said[-1]


async def test_after_sigkill_of_the_owner_no_worker_is_left(swarm: Swarm) -> None:
    rig, pids = await swarm.start_rig()
    rig.kill()
    await until(lambda: not any(runs(pid) for pid in pids))
    await until(lambda: not any(w["alive"] for w in swarm.coordinator.status()["workers"]))


async def test_a_killed_worker_is_started_again_and_prepared_with_a_new_epoch(swarm: Swarm) -> None:
    _, pids = await swarm.start_rig()
    before = swarm.coordinator.published.plan
    os.kill(pids[0], signal.SIGKILL)

    def replaced() -> bool:
        workers = swarm.coordinator.status()["workers"]
        plan = swarm.coordinator.published.plan
        return bool(before and plan and plan.epoch > before.epoch and len(plan.workers) == 2 and workers[0]["pid"] != pids[0])

    await until(replaced)


async def test_a_hung_worker_is_planned_around_and_used_again_when_it_goes_on(swarm: Swarm) -> None:
    _, pids = await swarm.start_rig()
    os.kill(pids[1], signal.SIGSTOP)
    await until(lambda: (plan := swarm.coordinator.published.plan) and len(plan.workers) == 1)
    os.kill(pids[1], signal.SIGCONT)
    await until(lambda: (plan := swarm.coordinator.published.plan) and len(plan.workers) == 2)


async def test_a_rig_is_told_which_of_its_devices_is_left_out_and_when_it_is_used_again(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.own_devices.LOOK_S", 0.1)
    said: list[str] = []
    devices = tuple(Device(name, name, 2**30, 1, "") for name in ("cpu", "cuda:8"))
    async with JoinedRig(replace(swarm.settings(), devices=devices, notify=said.append, spread=True), swarm.address) as rig:
        running = asyncio.create_task(rig.run())
        await until(lambda: "here/cuda:8 is left out: a file is truncated" in said)
        os.kill(rig.workers[0].pid, signal.SIGSTOP)
        await until(lambda: said[-1].startswith("here/cpu is left out: "))
        os.kill(rig.workers[0].pid, signal.SIGCONT)
        await until(lambda: "here/cpu is planned on again" in said)
        running.cancel()
        await asyncio.wait([running])


async def test_a_rig_that_comes_back_is_the_same_rig(swarm: Swarm) -> None:
    rig, _ = await swarm.start_rig(1)
    first = swarm.coordinator.status()["rigs"]
    rig.kill()
    await rig.wait()
    await swarm.start_rig(1)
    assert [(r["id"], r["name"]) for r in swarm.coordinator.status()["rigs"]] == [(first[0]["id"], "gaming-pc")]


class RayOfMemory:
    """In a Ray node's place: runs until it is stopped."""

    def __init__(self, token: str, head: str) -> None:
        self.settings = SimpleNamespace(token=token, head=head)
        self._stopped = asyncio.Event()

    async def ended(self) -> int:
        await self._stopped.wait()
        return 0

    async def stop(self) -> None:
        self._stopped.set()


class RigWithRayOfMemory(JoinedRig):
    started: tuple[tuple[str, str], ...] = ()

    async def _start_ray(self, token: str, head: str) -> None:
        self.ray = RayOfMemory(token, head)  # type: ignore[assignment]
        self.started = (*self.started, (token, head))


async def test_a_rig_that_comes_back_to_a_head_started_again_joins_its_new_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.rig.RAY_AGAIN_S", 0.0)
    port = claimed_range()[0]
    async with opened(port, tmp_path, RayDoor("10.0.0.1:7701", "first")) as swarm:
        rig = await RigWithRayOfMemory(swarm.settings(), swarm.address).__aenter__()
        running = asyncio.create_task(rig.run())
        await until(lambda: swarm.coordinator.published.plan)
    async with opened(port, tmp_path, RayDoor("10.0.0.1:7701", "second")) as swarm:
        await until(lambda: swarm.coordinator.published.plan)
        await until(lambda: len(rig.started) == 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await rig.__aexit__(None, None, None)
    assert rig.started == (("first", "10.0.0.1:7701"), ("second", "10.0.0.1:7701"))


async def test_a_rig_with_the_wrong_key_starts_nothing(swarm: Swarm) -> None:
    rig = JoinedRig(replace(swarm.settings(), key="guess"), swarm.address)
    with pytest.raises(WrongKey):
        await rig.__aenter__()
    assert rig.workers == []


async def test_a_rig_that_finds_no_swarm_starts_nothing(swarm: Swarm) -> None:
    rig = JoinedRig(swarm.settings(), f"127.0.0.1:{claimed_range()[0]}")
    with pytest.raises(NoSwarm):
        await rig.__aenter__()
    assert rig.workers == []


async def test_a_rig_that_advertises_an_address_of_nobody_is_told(swarm: Swarm) -> None:
    rig = JoinedRig(replace(swarm.settings(), host="127.9.9.9"), swarm.address)
    rig.bind = "127.0.0.1"
    with pytest.raises(Unreachable, match=r"127\.9\.9\.9"):
        await rig.__aenter__()


async def test_a_port_in_use_is_named_and_nothing_is_left(swarm: Swarm) -> None:
    settings = swarm.settings()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(settings.ports.partition("-")[0]) + 5))
        taken.listen()
        rig = JoinedRig(settings, swarm.address)
        with pytest.raises(PortInUse, match="choose another range with --ports"):
            await rig.__aenter__()
    assert rig.workers == []


async def test_a_worker_that_does_not_start_says_why_in_its_own_words(swarm: Swarm) -> None:
    with pytest.raises(DeviceError, match="cuda:9 is not a device of this machine"):
        await JoinedRig(swarm.settings("cuda:9"), swarm.address).__aenter__()
    assert json.loads(json.dumps(swarm.coordinator.status()))["workers"] == []


def test_two_rigs_on_one_machine_are_two_and_each_is_itself_again_later(tmp_path: Path) -> None:
    first, second = Identity(tmp_path), Identity(tmp_path)
    ids = first.rig_id, second.rig_id
    assert ids[0] != ids[1] and first.folder != second.folder
    first.close()
    second.close()
    again = Identity(tmp_path), Identity(tmp_path)
    assert (again[0].rig_id, again[1].rig_id) == ids
    for each in again:
        each.close()


async def until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not there():
            await asyncio.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
