"""`swarm doctor ADDRESS` as a person runs it, against a door and a Worker over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from claimed_ports import claimed_port, free_range
from fake_worker import FakeAgents, FakeWorker, Servicer
from memory_swarm import NEED, TARGET, offer

from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from cluster.versions import own_versions
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2_grpc, worker_pb2_grpc
from swarm.worker.echo import Echo

LIMIT_S = 120.0
KEY = Credentials("secret")


class Echoing(Servicer):
    """A Worker that does nothing but answer frames."""

    def Echo(self, requests, context):  # type: ignore[no-untyped-def]
        return Echo("attic/cpu").answers(requests)


@dataclass
class Running:
    address: str
    agents: FakeAgents
    door: Door


@pytest.fixture
async def swarm() -> AsyncIterator[Running]:
    agents = FakeAgents()
    coordinator = Coordinator(TARGET, agents, "attic", lambda: 1000.0)
    server = KEY.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(Echoing(FakeWorker()), server)
    address = f"127.0.0.1:{KEY.bind(server, f'127.0.0.1:{claimed_port()}')}"
    door = Door(coordinator, address, RayDoor())
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(door, server)
    await server.start()
    await coordinator.start()
    here = offer("attic", 2 * NEED)
    await coordinator.join(replace(here, devices=(replace(here.devices[0], worker_address=address),)))
    yield Running(address, agents, door)
    await coordinator.stop()
    await server.stop(None)


async def doctor(tmp_path: Path, *words: str, blocked: str = "") -> tuple[int, str, str]:
    """Exit code and output; `blocked`: modules that are not installed there."""
    code = (
        "import sys\n"
        "class Wall:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {blocked.split()}: raise ModuleNotFoundError(name, name=name)\n"
        f"for name in {blocked.split()}: sys.modules.pop(name, None)\n"
        "import importlib.util as util, importlib.metadata as metadata\n"
        "find, version = util.find_spec, metadata.version\n"
        f"util.find_spec = lambda name, package=None: None if name in {blocked.split()} else find(name, package)\n"
        "def there(name):\n"
        f"    if name in {blocked.split()}: raise metadata.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "metadata.version = there\n"
        "sys.meta_path.insert(0, Wall())\n"
        "from swarm.cli.main import main; main()\n"
    )
    environment = {**os.environ, "SWARM_HOME": str(tmp_path), "SWARM_KEY": "secret"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "doctor", *words, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    return process.returncode or 0, out.decode(), err.decode()


def about(document: dict[str, Any], topic: str) -> list[dict[str, str]]:
    return [f for f in document["findings"] if f["about"] == topic]


async def test_a_visit_measures_the_way_there_and_back_and_joins_nothing(swarm: Running, tmp_path: Path) -> None:
    code, out, err = await doctor(tmp_path, swarm.address, "--json", "--ports", free_range())
    document = json.loads(out)
    assert (code, err, document["fits"]) == (0, "", True), out
    (link,) = document["links"]
    assert link["rig"] == "attic" and link["rtt_ms"] > 0 and link["there_gbit_s"] > 0 and link["back_gbit_s"] > 0
    told = "\n".join(f["what"] for f in document["findings"])
    assert "attic reaches this machine at 127.0.0.1, on all 32 ports" in told
    assert "what the swarm runs" in told and "within 1 s of the swarm's" in told
    assert list(swarm.agents.workers) == [swarm.address]


async def test_what_would_stop_a_join_is_exit_code_1_with_its_remedy(swarm: Running, tmp_path: Path) -> None:
    swarm.door._versions = replace(own_versions(), torch="2.99.0")
    code, out, _ = await doctor(tmp_path, swarm.address, "--json", "--ports", free_range(), blocked="ray zeroconf")
    document = json.loads(out)
    assert code == 1 and not document["fits"]
    (missing,) = [f for f in about(document, "software") if f["level"] == "stop"]
    assert "ray and zeroconf are not installed" in missing["what"] and "pip install '.[rig]'" in missing["remedy"]
    code, out, _ = await doctor(tmp_path, swarm.address, "--json", "--ports", free_range())
    (stop,) = [f for f in json.loads(out)["findings"] if f["level"] == "stop"]
    assert code == 1 and "the swarm 2.99.0" in stop["what"] and "torch==2.99.0" in stop["remedy"]


async def test_a_swarm_that_is_not_there_and_a_wrong_key_are_findings(swarm: Running, tmp_path: Path) -> None:
    code, out, err = await doctor(tmp_path, f"127.0.0.1:{claimed_port()}", "--ports", free_range())
    assert code == 1 and not err and "stop way" in out and "does not answer" in out and "a join would not work: 1 to mend" in out
    code, out, _ = await doctor(tmp_path, swarm.address, "--key", "guess", "--json", "--ports", free_range())
    assert code == 1 and "does not accept this key" in about(json.loads(out), "way")[0]["what"]


async def test_a_laptop_without_torch_and_ray_is_looked_at_too(tmp_path: Path) -> None:
    rig = "torch ray numpy safetensors huggingface_hub psutil scipy zeroconf"
    code, out, err = await doctor(tmp_path, "--ports", free_range(), blocked=rig)
    assert code == 1 and not err and "torch and zeroconf are not installed, which a rig has" in out
    assert "chatting needs no more than is here" in out and "RAM free" in out and "ports" in out
