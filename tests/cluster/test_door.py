"""The swarm's door over real sockets: who is let in, and what the others are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
import pytest
from claimed_ports import claimed_port
from fake_worker import MIB, MODELS, FakeAgents
from memory_swarm import offer

from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from cluster.membership import Membership
from cluster.place import Place
from cluster.planner import Load, needed_bytes
from cluster.roster import Versions
from cluster.target import Published, Target
from swarm.errors import DoesNotFit, ModelError, NoSwarm, SwarmError, Unreachable, UsageError, VersionMismatch, WrongKey
from swarm.plan import Plan
from swarm.wire import invitation
from swarm.wire.authority import Authority
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc

VERSIONS = Versions("0.1.0", "3.11", "2.60.0", "2.13.0+cpu")
NEED = needed_bytes(MODELS["nano"], Load(1, 64))


class Watched(Coordinator):
    """Remembers which Rigs watch."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.watching: list[str] = []

    async def watch(self, rig_id: str = "") -> AsyncIterator[Published]:
        self.watching.append(rig_id)
        try:
            async for published in super().watch(rig_id):
                yield published
        finally:
            self.watching.remove(rig_id)


@dataclass
class OpenDoor:
    address: str
    stub: swarm_pb2_grpc.SwarmServiceStub
    coordinator: Watched
    agents: FakeAgents

    def membership(self, key: str = "secret", address: str = "") -> Membership:
        return Membership(Credentials(key), address or self.address, lambda message: None)


@pytest.fixture
async def door() -> AsyncIterator[OpenDoor]:
    agents = FakeAgents()
    coordinator = Watched(Target("nano", "fp32", 1, 64), agents, "rig-id", lambda: 1000.0)
    server = Credentials("secret").server()
    listener = Door(coordinator, "10.0.0.1:7700", RayDoor("10.0.0.1:7701", "ray-token"), VERSIONS)
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(listener, server)
    port = Credentials("secret").bind(server, "127.0.0.1:0")
    await server.start()
    await coordinator.start()
    channel = Credentials("secret").channel(f"127.0.0.1:{port}")
    yield OpenDoor(f"127.0.0.1:{port}", swarm_pb2_grpc.SwarmServiceStub(channel), coordinator, agents)
    await channel.close(None)
    await coordinator.stop()
    await server.stop(None)


@pytest.fixture
async def probe() -> AsyncIterator[int]:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def knock(port: int, versions: Versions = VERSIONS) -> pb.KnockRequest:
    told = pb.Versions(swarm=versions.swarm, python=versions.python, ray=versions.ray, torch=versions.torch)
    place = Place("127.0.0.1", (port,), f"{port}-{port + 31}")
    return pb.KnockRequest(rig_id="x", rig_name="gaming-pc", versions=told, place=place.to_wire())


def join(memory_bytes: int = NEED + MIB) -> pb.JoinRequest:
    told = pb.Versions(swarm="0.1.0", python="3.11", ray="2.60.0", torch="2.13.0")
    device = pb.DeviceOffer(device="cpu", memory_bytes=memory_bytes, worker_address="127.0.0.1:1", threads=1)
    return pb.JoinRequest(rig_id="rig-id", rig_name="attic", devices=[device], versions=told)


async def test_who_has_the_key_and_the_versions_is_told_how_to_reach_ray(door: OpenDoor, probe: int) -> None:
    reply = await door.membership().knock(knock(probe, replace(VERSIONS, torch="2.13.0+cu130")))
    assert (reply.ray_address, reply.ray_token) == ("10.0.0.1:7701", "ray-token")
    assert (reply.rig_name, reply.seen_as) == ("gaming-pc", "127.0.0.1")


async def test_a_wrong_key_is_refused_before_anything_is_said(door: OpenDoor, probe: int) -> None:
    with pytest.raises(WrongKey, match="does not accept this key"):
        await door.membership("guess").knock(knock(probe))


async def test_no_swarm_at_the_address_says_so(door: OpenDoor, unused_port: int, probe: int) -> None:
    with pytest.raises(NoSwarm, match=f"127.0.0.1:{unused_port} does not answer"):
        await door.membership(address=f"127.0.0.1:{unused_port}").knock(knock(probe))


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        (replace(VERSIONS, torch="2.12.1"), r"runs torch 2\.12\.1, the swarm 2\.13\.0.*pip install.*torch==2\.13\.0"),
        (replace(VERSIONS, ray="2.59.0"), r"runs Ray 2\.59\.0, the swarm 2\.60\.0.*ray\[default\]==2\.60\.0"),
        (
            replace(VERSIONS, swarm="0.2.0"),
            r"runs swarm 0\.2\.0, the swarm 0\.1\.0.*clone of swarm 0\.1\.0, run `pip install '\.\[rig\]' ",
        ),
        (replace(VERSIONS, python="3.12"), r"runs Python 3\.12, the swarm 3\.11.*python3\.11 -m venv"),
    ],
)
async def test_other_versions_are_refused_with_the_install_line(
    door: OpenDoor, probe: int, theirs: Versions, sentence: str
) -> None:
    with pytest.raises(VersionMismatch, match=sentence):
        await door.membership().knock(knock(probe, theirs))


async def test_a_rig_that_cannot_be_reached_back_is_told_both_addresses_and_the_port(door: OpenDoor, unused_port: int) -> None:
    with pytest.raises(Unreachable) as caught:
        await door.membership().knock(knock(unused_port))
    said = ("gaming-pc came from 127.0.0.1", "is at 127.0.0.1", "10.0.0.1", f"port {unused_port}: Connection refused", "--address")
    for part in (*said, f"allow TCP {unused_port}-{unused_port + 31}"):
        assert part in str(caught.value)


async def test_a_rig_is_dialled_back_by_each_rig_of_the_swarm(door: OpenDoor, probe: int) -> None:
    await door.membership().join(join(8 * NEED))
    await door.coordinator.join(offer("closet", NEED))
    reply = await door.membership().knock(knock(probe))
    assert {n.rig_name: n.worker_address for n in reply.neighbours} == {"attic": "127.0.0.1:1", "closet": "closet:7700"}
    door.agents.workers["closet:7700"].reaches = lambda host, port: False
    with pytest.raises(Unreachable, match=r"closet \(closet\) cannot reach it \(port \d+: no answer\)"):
        await door.membership().knock(knock(probe))
    door.agents.workers["closet:7700"].alive = False  # whoever does not answer is not asked, and need not be reached
    assert [n.rig_name for n in (await door.membership().knock(knock(probe))).neighbours] == ["attic"]


async def test_a_visitor_is_told_what_each_rig_finds_and_is_not_let_in(door: OpenDoor, probe: int, unused_port: int) -> None:
    await door.membership().join(join(8 * NEED))
    place = Place("127.0.0.1", (probe, unused_port), "1-2").to_wire()
    reply = await door.stub.Visit(pb.VisitRequest(rig_name="laptop", place=place))
    assert [(d.rig_name, d.rig_address, d.port, bool(d.why)) for d in reply.dialled] == [
        ("attic", "10.0.0.1", probe, False), ("attic", "10.0.0.1", unused_port, True),
    ]  # fmt: skip
    assert reply.versions.torch == VERSIONS.torch and reply.seen_as == "127.0.0.1" and reply.unix_s > 1e9
    assert [r["name"] for r in door.coordinator.status()["rigs"]] == ["attic"]


async def test_a_join_is_answered_with_the_epoch_and_the_plan_is_served(door: OpenDoor) -> None:
    reply = await door.membership().join(join())
    answer = await door.stub.GetPlan(pb.PlanRequest())
    plan = Plan.from_json(answer.plan)
    assert reply.epoch == plan.epoch and not answer.waiting
    assets = await door.stub.GetAssets(pb.AssetsRequest(model_id=plan.model.model_id))
    assert [a.name for a in assets.assets] == ["config.json"] and assets.sha256 == answer.assets_sha256


async def test_a_join_that_is_not_enough_says_what_is_missing(door: OpenDoor) -> None:
    reply = await door.membership().join(join(NEED // 2))
    assert reply.epoch == 0 and "waiting for `swarm join ...`" in reply.message


async def test_watching_gives_the_plan_now_and_the_next(door: OpenDoor) -> None:
    watch = aiter(door.stub.WatchPlan(pb.PlanRequest()))
    assert not (await anext(watch)).plan
    await door.membership().join(join())
    async for reply in watch:
        if reply.plan:
            break
    assert Plan.from_json(reply.plan).model.name == "nano"


@pytest.mark.parametrize(
    ("request_", "error", "sentence"),
    [
        (pb.LoadRequest(model="deep"), DoesNotFit, "deep in fp32"),
        (pb.LoadRequest(model="nowhere"), ModelError, r"config\.json"),
        (pb.LoadRequest(model="nano", dtype="int3"), UsageError, "int3"),
    ],
)
async def test_a_load_that_cannot_be_done_says_why(
    door: OpenDoor, request_: pb.LoadRequest, error: type[SwarmError], sentence: str
) -> None:
    await door.membership().join(join())
    with pytest.raises(error, match=sentence):
        await _load(door, request_)


async def test_a_load_streams_its_progress_to_the_end(door: OpenDoor) -> None:
    await door.membership().join(join(8 * NEED))
    assert (await _load(door, pb.LoadRequest(model="other")))[-1].done
    assert json.loads((await door.stub.GetStatus(pb.StatusRequest())).json)["model"] == "other"


async def test_keys_and_values_are_kept_in_int8_from_a_load_that_says_so_until_one_that_says_otherwise(door: OpenDoor) -> None:
    await door.membership().join(join(8 * NEED))
    for kv, kept in (("", ""), ("int8", "int8"), ("", "int8"), ("full", "")):
        await _load(door, pb.LoadRequest(model="other", kv=kv))
        plan = Plan.from_json((await door.stub.GetPlan(pb.PlanRequest())).plan)
        assert plan.model.kv == kept
        assert sum(w.kv_bytes for w in plan.workers) == plan.model.config.num_blocks * plan.model.sizes.kv(64)
    with pytest.raises(UsageError, match="--kv int4 is not known: give full or int8"):
        await _load(door, pb.LoadRequest(model="other", kv="int4"))


async def test_leaving_streams_what_happens_and_a_stranger_cannot_leave(door: OpenDoor) -> None:
    membership = door.membership()
    await membership.join(join())
    await membership.leave()
    assert json.loads((await door.stub.GetStatus(pb.StatusRequest())).json)["workers"] == []
    with pytest.raises(SwarmError, match="not in this swarm"):
        await membership.leave()


async def test_the_swarm_knows_that_a_rig_is_there_while_it_follows_the_plan(door: OpenDoor) -> None:
    membership = Membership(Credentials("secret"), door.address, lambda message: None, rig_id="rig-id")
    staying = asyncio.create_task(membership.stay())
    await _until(lambda: door.coordinator.watching == ["rig-id"])
    staying.cancel()
    await membership.close()
    await _until(lambda: not door.coordinator.watching)


async def _until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(60.0):
        while not there():
            await asyncio.sleep(0.01)


async def _load(door: OpenDoor, request: pb.LoadRequest) -> list[pb.Progress]:
    try:
        return [progress async for progress in door.stub.Load(request)]
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, "the swarm") from None


@pytest.fixture
def unused_port() -> int:
    return claimed_port()


async def test_a_guest_who_says_it_is_a_rig_neither_keeps_that_rig_there_nor_counts_as_its_drops(door: OpenDoor) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    guest = Credentials(invitation.write(Authority.of("secret").client("guest", until)), "guest")
    async with guest.channel(door.address) as channel:
        watching = swarm_pb2_grpc.SwarmServiceStub(channel).WatchPlan(pb.PlanRequest(rig_id="rig-id"))
        await watching.read()
        assert door.coordinator.watching == [""]
        watching.cancel()
