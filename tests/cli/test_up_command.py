"""`up` and `join` that cannot: one sentence each, before anything starts; and who is refused at a door, by the real `join`."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claimed_ports import free_range
from commands import Ran, is_one_sentence, swarm

pytest.importorskip("torch")

from cluster.agents import WorkerAgents
from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from cluster.roster import Versions
from cluster.target import Target
from cluster.versions import own_versions
from swarm.weights.source import NANO_FOLDER
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2_grpc

HERE = ("--address", "127.0.0.1", "--device", "cpu=80MiB")
KEY = "secret"


def refused(*words: str, code: int = 1) -> str:
    """What a command says that fails before it starts anything."""
    ran: Ran = swarm(*words)
    assert ran.code == code and not ran.out, ran
    assert is_one_sentence(ran.err), ran.err
    return ran.err


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A sound folder, to be broken."""
    return Path(shutil.copytree(NANO_FOLDER, tmp_path / "some-moe"))


def test_a_missing_shard_is_named(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "model-2.safetensors"}}))
    assert "model-2.safetensors" in refused("up", str(model), *HERE)


def test_a_truncated_file_is_named(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(2**20)
    assert str(model / "model.safetensors") in refused("up", str(model), *HERE)


def test_an_unknown_architecture_is_named(model: Path) -> None:
    config = json.loads((model / "config.json").read_text()) | {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}
    (model / "config.json").write_text(json.dumps(config))
    assert "MambaForCausalLM" in refused("up", str(model), *HERE)


def test_a_model_that_is_nowhere_is_a_usage_error() -> None:
    assert "no such folder" in refused("up", "no such folder", *HERE, code=2)


@pytest.mark.parametrize("command", [("up", "nano"), ("join", "127.0.0.1:9", "--key", KEY)], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--device", "toaster"), 2, "toaster"),
        (("--device", "cpu=much"), 2, "much"),
        (("--device", "cuda:99"), 1, "cuda:99"),
        (("--device", "cpu=900000GiB"), 1, "RAM"),
        (("--ram", "-1GiB"), 2, "--ram"),
        (("--threads", "0"), 2, "--threads 0"),
        (("--device", "cpu=1GiB", "--exclude", "cpu"), 1, "--exclude"),
        ((*HERE, "--ports", "7700"), 2, "--ports 7700"),
        ((*HERE, "--ports", "7700-7705"), 2, "use --ports 7700-"),
        ((*HERE, "--ports", "80-120"), 2, "1024"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_an_option_that_makes_no_sense_is_one_sentence(
    command: tuple[str, ...], options: tuple[str, ...], code: int, words: str
) -> None:
    assert words in refused(*command, *options, code=code)


@pytest.mark.parametrize("command", ["up", "join"])
def test_a_port_in_use_is_named(command: str) -> None:
    ports = free_range()
    taken = int(ports.partition("-")[0]) + (3 if command == "up" else 0)
    swarm_there = ("nano",) if command == "up" else ("127.0.0.1:9", "--key", KEY)
    with socket.create_server(("127.0.0.1", taken)):
        ran = swarm(command, *swarm_there, *HERE, "--ports", ports)
    assert ran.code == 1 and not ran.out
    assert f"127.0.0.1:{taken}" in ran.err and "--ports" in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize("address", ["192.0.2.1", "no.such.host"])
def test_an_address_that_is_not_this_machines_is_named(address: str) -> None:
    ran = swarm("up", "nano", "--device", "cpu=80MiB", "--address", address, "--ports", free_range())
    assert ran.code == 1 and not ran.out and address in ran.err and "--address" in ran.err and "Traceback" not in ran.err


def test_a_port_where_nobody_listens_is_no_swarm() -> None:
    first = free_range().partition("-")[0]
    said = swarm("join", f"127.0.0.1:{first}", "--key", KEY, *HERE, "--ports", free_range())  # else it finds itself
    assert said.code == 1 and f"127.0.0.1:{first} does not answer" in said.err and "Traceback" not in said.err


def test_a_port_where_something_else_listens_is_no_swarm() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = swarm("join", f"127.0.0.1:{port}", "--key", KEY, *HERE, "--ports", free_range())
    assert said.code == 1 and f"127.0.0.1:{port}" in said.err and "Traceback" not in said.err


def test_a_join_without_a_key_says_where_it_is_found() -> None:
    assert "--key" in refused("join", "127.0.0.1:9", *HERE)


@pytest.fixture
def door(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a swarm that runs other versions, and no Rig yet."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    stop, address = asyncio.Event(), []

    async def serve() -> None:
        credentials = Credentials(KEY)
        coordinator = Coordinator(Target("nano"), WorkerAgents(credentials), "head", lambda: 1000.0)
        server: Any = credentials.server()
        swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(coordinator, "here", RayDoor(), request.param), server)
        address.append(f"127.0.0.1:{credentials.bind(server, '127.0.0.1:0')}")
        await server.start()
        started.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(60)
    yield address[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


OURS = own_versions()
OTHERS = [
    (
        Versions("9.9.9", OURS.python, OURS.ray, OURS.torch),
        "swarm 0.1.0, the swarm 9.9.9",
        "in a clone of swarm 9.9.9, run `pip install '.[rig]' ",
    ),
    (Versions(OURS.swarm, "3.99", OURS.ray, OURS.torch), "the swarm 3.99", "python3.99 -m venv"),
    (Versions(OURS.swarm, OURS.python, "1.2.3", OURS.torch), "the swarm 1.2.3", "ray[default]==1.2.3"),
    (Versions(OURS.swarm, OURS.python, OURS.ray, "1.0.0"), "the swarm 1.0.0", "torch==1.0.0"),
]


@pytest.mark.parametrize(("door", "words", "remedy"), OTHERS, ids=["swarm", "python", "ray", "torch"], indirect=["door"])
def test_another_version_is_refused_at_the_door_with_the_line_that_installs_it(door: str, words: str, remedy: str) -> None:
    ran = swarm("join", door, "--key", KEY, *HERE, "--ports", free_range(), "--name", "desk")
    assert ran.code == 1 and words in ran.err and remedy in ran.err and "Traceback" not in ran.err, ran.err


@pytest.mark.parametrize("door", [OURS], ids=["ours"], indirect=True)
def test_a_wrong_key_is_refused_at_the_door(door: str) -> None:
    ran = swarm("join", door, "--key", "guess", *HERE, "--ports", free_range())
    assert ran.code == 1 and "key" in ran.err and "Traceback" not in ran.err, ran.err


@pytest.mark.parametrize("door", [OURS], ids=["ours"], indirect=True)
def test_an_address_that_the_swarm_cannot_dial_back_is_refused_with_the_firewall_remedy(door: str) -> None:
    ran = swarm("join", door, "--key", KEY, "--device", "cpu=80MiB", "--address", "192.0.2.1", "--ports", free_range())
    assert ran.code == 1 and "192.0.2.1" in ran.err and "--address" in ran.err and "Traceback" not in ran.err, ran.err
