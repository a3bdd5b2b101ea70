"""Unix sockets between Workers of one rig: only in a folder that is the user's alone, and spoken to as from afar."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc.aio
import psutil
import pytest

pytest.importorskip("torch", reason="the Workers of these tests need it")

from plans import plan_of
from raw_client import bits, raw, step
from swarm_processes import workers_here

from swarm.errors import NoSwarm, WrongKey
from swarm.wire import near
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub
from swarm.worker.peers import Peers

TEXT = [(11 * i) % 2000 + 50 for i in range(40)]
KEY = "nobody-guesses-this-one"


def connections(path: str) -> int:
    """That this process serves at a Unix socket, its listening one included."""
    return sum(each.laddr == path for each in psutil.Process().net_connections("unix"))


@pytest.mark.parametrize("key", ["", KEY])
async def test_workers_of_one_rig_talk_through_a_socket_and_those_of_two_do_not_and_the_bits_are_the_same(key: str) -> None:
    credentials, found = Credentials(key), []
    for rigs in (("here", "here"), ("here", "there")):
        plan = plan_of([3, 8])
        plan = replace(plan, workers=tuple(replace(w, rig=rig) for w, rig in zip(plan.workers, rigs, strict=True)))
        port = int(plan.worker("w1").address.rpartition(":")[2])
        async with workers_here(plan, credentials), raw(plan, credentials) as client:
            streams = near.streams_of("w1", port)
            found.append(bits(*await client.ask(step(await client.open(64), TEXT, 0))))
            assert connections(str(streams)) == (2 if rigs[0] == rigs[1] else 1)
            assert near.address_of("w1", port) is not None
        assert near.streams_of("w1", port) is near.address_of("w1", port) is None
    assert found[0] == found[1]


async def test_who_has_no_key_is_refused_at_the_socket_as_at_the_port() -> None:
    plan = plan_of([8])
    async with workers_here(plan, Credentials(KEY)):
        beside = near.address_of("w0", int(plan.worker("w0").address.rpartition(":")[2]))
        assert beside is not None
        for stranger in (Credentials(), Credentials("nobody-guesses-that-one")):
            async with stranger.channel(beside) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await WorkerServiceStub(channel).Status(pb.WorkerStatusRequest(), timeout=60)
            assert isinstance(from_rpc(refused.value, "the worker"), (NoSwarm, WrongKey))


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name: the kernel takes 107 bytes in all."""
    with tempfile.TemporaryDirectory(prefix="swarm-") as folder:
        yield Path(folder)


def test_a_folder_that_others_can_look_into_or_that_is_a_link_is_used_by_nobody(short: Path) -> None:
    folder = short / f"swarm-{os.getuid()}"
    folder.mkdir(mode=0o755)
    assert near.address_for("w", 1, short) is None
    folder.rmdir()
    folder.symlink_to(short)
    assert near.address_for("w", 1, short) is None
    folder.unlink()
    address = near.address_for("w", 1, short)
    assert address is not None and near.address_of("w", 1, short) is None, "nobody listens yet"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address.removeprefix("unix:"))
        listening.listen()
        assert near.address_of("w", 1, short) == address
        folder.chmod(0o777)
        assert near.address_of("w", 1, short) is None


def test_the_socket_that_a_killed_worker_left_behind_leads_nowhere_and_the_next_worker_has_it_again(short: Path) -> None:
    address = near.address_for("w", 1, short)
    assert address is not None
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(address.removeprefix("unix:"))
        killed.listen()
    assert Path(address.removeprefix("unix:")).is_socket()
    assert near.address_of("w", 1, short) is None
    assert near.address_for("w", 1, short) == address


async def test_an_address_that_another_rig_has_by_now_is_dialled_there_and_not_at_our_own_socket() -> None:
    plan = plan_of([3, 8])
    plan = replace(plan, workers=tuple(replace(w, rig="here") for w in plan.workers))
    address = plan.worker("w1").address
    async with workers_here(plan, commit=False):
        peers = Peers(Credentials())
        peers.know(plan, "w0")
        ours = peers.stub(address)
        assert peers._nearest(address).startswith("unix:") and peers.stub(address) is ours
        peers.know(replace(plan, workers=(plan.worker("w0"), replace(plan.worker("w1"), rig="there"))), "w0")
        assert peers._nearest(address) == address and peers.stub(address) is not ours
        await peers.keep_only(())


async def test_ways_that_are_closed_while_another_key_comes_leave_those_of_that_key(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = Credentials("old")
    peers = Peers(credentials)
    for port in (1, 2, 3):
        peers.stub(f"127.0.0.1:{port}")
    close = grpc.aio.Channel.close

    async def meanwhile(channel: grpc.aio.Channel, grace: float | None = None) -> None:
        credentials.use("new")
        peers.stub("127.0.0.1:1")
        await close(channel, grace)

    for channel in peers._channels.values():
        monkeypatch.setattr(type(channel), "close", meanwhile)
    await peers.keep_only(["127.0.0.1:1"])
    monkeypatch.undo()
    assert list(peers._stubs) == list(peers._channels) == ["127.0.0.1:1"]
    await peers.settle()
    await peers.keep_only([])
