"""Calls that rigs, guests and other Workers make, damaged anywhere: each is answered or refused, and no bug of ours shows."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
import pytest_asyncio
from damaged import as_it_is, begun, damaged
from fake_worker import FakeAgents
from google.protobuf.message import DecodeError, Message
from memory_swarm import NEED, TARGET, offer
from plans import plan_of
from swarm_processes import OPEN, InMemory, workers_here

from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from swarm.api.turns import pieces_of, wishes_of
from swarm.client.client import open_client
from swarm.client.conversation import Conversation, Piece
from swarm.client.talk import Talk
from swarm.errors import SwarmError
from swarm.wire.v1 import key_pb2, rig_pb2, stage_pb2, swarm_pb2, swarm_pb2_grpc, text_pb2, weights_pb2, worker_pb2, worker_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")
BUGS = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
EACH = 40
SHORT_S = 2.0
VERSIONS = swarm_pb2.Versions(swarm="0.1.0", python="3.11", ray="2.60.0", torch="2.13.0")
PLACE = swarm_pb2.Place(host="127.0.0.1", ports=[1], range="7700-7731", addresses=["127.0.0.1"])
CPU = swarm_pb2.DeviceOffer(device="cpu", memory_bytes=NEED, worker_address="b:7700", threads=1)
DOOR: dict[str, Message] = {
    "Knock": swarm_pb2.KnockRequest(rig_id="x", rig_name="desk", versions=VERSIONS, place=PLACE),
    "Visit": swarm_pb2.VisitRequest(rig_name="desk", place=PLACE),
    "Join": swarm_pb2.JoinRequest(rig_id="b", rig_name="desk", devices=[CPU], versions=VERSIONS, text_address="b:7701"),
    "Leave": swarm_pb2.LeaveRequest(rig_id="b"),
    "WorkerRestarted": swarm_pb2.WorkerRestartedRequest(rig_id="b", worker_address="b:7700"),
    "GetPlan": swarm_pb2.PlanRequest(rig_id="b", asks=True),
    "WatchPlan": swarm_pb2.PlanRequest(rig_id="b"),
    "GetAssets": swarm_pb2.AssetsRequest(model_id="nano"),
    "Load": swarm_pb2.LoadRequest(model="nano", dtype="fp32", sessions=1, context=64, objective="latency", kv="full"),
    "PauseLoss": swarm_pb2.PauseRequest(rig="desk", device="cpu"),
    "Pause": swarm_pb2.PauseRequest(rig="desk", device="cpu"),
    "Resume": swarm_pb2.PauseRequest(rig="desk", device="cpu"),
    "ReportFailure": swarm_pb2.FailureReport(worker="desk/cpu"),
}
PEER = weights_pb2.Peer(address="127.0.0.1:1", rig="b")
CALL = text_pb2.Call(id="1", name="weather", arguments='{"city": "Rome"}')
WISHES = text_pb2.Options(system="Be brief.", temperature=0.5, top_k=3, seed=7, max_tokens=4, stops=["x"], tools="[]")
CHAT = [text_pb2.Message(role="user", content="Hi"), text_pb2.Message(role="assistant", content="", calls=[CALL])]
TURNS = (
    text_pb2.Turn(question=text_pb2.Question(text="Hello"), options=WISHES),
    text_pb2.Turn(question=text_pb2.Question(text="Hello"), history=text_pb2.History(tokens=[1, 5, 6], calls=[CALL])),
    text_pb2.Turn(chat=text_pb2.Chat(messages=[*CHAT, text_pb2.Message(role="tool", content="sun", tool_call_id="1")])),
    text_pb2.Turn(go_on=text_pb2.GoOn(prompt=[1, 2], answer=[3])),
    text_pb2.Turn(results=text_pb2.ToolResults(results=["sunny"]), history=text_pb2.History(tokens=[1], calls=[CALL])),
)
OPENING: dict[str, Any] = {"session": b"s" * 16, "model_id": "m", "epoch": 1, "positions": 8, "lease_s": 1.0}
WORKER: dict[str, Message] = {
    "StageService/Open": stage_pb2.OpenRequest(**OPENING, prefix_hashes=[1, 2]),
    "StageService/Reserve": stage_pb2.OpenRequest(**OPENING, open_in=1),
    "StageService/Close": stage_pb2.CloseRequest(session=b"s" * 16, epoch=1),
    "StageService/Release": stage_pb2.CloseRequest(session=b"s" * 16, epoch=1),
    "StageService/Unknown": stage_pb2.SessionsRequest(sessions=[b"s" * 16]),
    "StageService/Listen": stage_pb2.ListenRequest(client=b"c" * 16),
    "StageService/WholeRow": stage_pb2.WholeRowRequest(session=b"s" * 16, serial=1, model_id="m"),
    "WorkerService/Describe": worker_pb2.DescribeRequest(model="nano", dtype="fp32"),
    "WorkerService/Commit": worker_pb2.EpochRequest(epoch=2),
    "WorkerService/Drain": worker_pb2.EpochRequest(epoch=2, deadline_s=0.01),
    "WorkerService/Measure": worker_pb2.MeasureRequest(dtype="fp7", hidden=64, ffn=128, budget_s=0.01, kernels_core=30),
    "WorkerService/MeasureLink": worker_pb2.LinkRequest(address="127.0.0.1:1", budget_s=0.1),
    "WorkerService/Dial": worker_pb2.DialRequest(host="127.0.0.1", ports=[1], timeout_s=0.1),
    "WeightsService/Outline": weights_pb2.OutlineRequest(model_id="m"),
    "WeightsService/Read": weights_pb2.ReadRequest(model_id="m", file="model.safetensors", offset=0, size=64),
    "WorkerService/Prepare": worker_pb2.PrepareRequest(plan=plan_of([8]).to_json(), name="w0", peers=[PEER]),
    "WeightsService/Survey": weights_pb2.SurveyRequest(plan=plan_of([8]).to_json(), name="w0", peers=[PEER]),
    "WeightsService/Fetch": weights_pb2.FetchRequest(plan=plan_of([8]).to_json(), files=["model.safetensors"]),
    "KeyService/Revoke": key_pb2.RevokeRequest(numbers=[b"n" * 20]),
    "KeyService/Rekey": key_pb2.RekeyRequest(step=key_pb2.REKEY_USE, key="a-key", settle_s=1.0),
    "RigService/Logs": rig_pb2.LogsRequest(since=1.0),
    "RigService/Models": rig_pb2.ModelsRequest(),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[str]:
    """Of a swarm of two Rigs whose Workers are in memory."""
    coordinator = Coordinator(TARGET, FakeAgents(), "a", lambda: 1000.0)
    server = OPEN.server()
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(coordinator, "127.0.0.1:7700", RayDoor()), server)
    port = OPEN.bind(server, "127.0.0.1:0")
    await server.start()
    await coordinator.start()
    for rig in "ab":
        await coordinator.join(offer(rig, NEED))
    yield f"127.0.0.1:{port}"
    await coordinator.stop()
    await server.stop(None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[str]:
    """One that serves all of the embedded model."""
    plan = plan_of([8])
    async with workers_here(plan):
        yield plan.workers[0].address


@pytest.mark.parametrize("method", DOOR)
async def test_a_call_of_the_door_that_is_damaged_anywhere_is_answered_or_refused(door: str, method: str) -> None:
    await every(door, f"SwarmService/{method}", DOOR[method])
    async with OPEN.channel(door) as channel:
        assert (await swarm_pb2_grpc.SwarmServiceStub(channel).GetStatus(swarm_pb2.StatusRequest())).json


@pytest.mark.parametrize("method", WORKER)
async def test_a_call_of_a_worker_that_is_damaged_anywhere_is_answered_or_refused(worker: str, method: str) -> None:
    await every(worker, method, WORKER[method])
    async with OPEN.channel(worker) as channel:
        assert (await worker_pb2_grpc.WorkerServiceStub(channel).Status(worker_pb2.WorkerStatusRequest())).name == "w0"


async def every(address: str, method: str, sound: Message) -> None:
    """Call with it, and with what damage makes of it; none ends as a bug of ours does."""
    rng, raw = random.Random(method), sound.SerializeToString() or b"\0"
    async with OPEN.channel(address) as channel:
        call = channel.unary_stream(f"/swarm.v1.{method}", as_it_is, as_it_is)
        for made in (raw, *(damaged(raw, rng) for _ in range(EACH))):
            calling: Any = call(made)
            assert await begun(calling, SHORT_S) not in BUGS, f"{made!r}: {await calling.details()}"


class Silent(Conversation):
    """Takes a prompt, and answers nothing."""

    async def generate(self, *words: Any) -> AsyncGenerator[Piece]:
        for piece in list[Piece]():
            yield piece


async def test_a_turn_of_a_chat_via_a_rig_that_is_damaged_anywhere_is_read_or_refused() -> None:
    rng, raws = random.Random(11), [turn.SerializeToString() for turn in TURNS]
    async with open_client(InMemory(plan_of([8])), OPEN) as client:
        client.conversation = lambda speculate=True: Silent(client, lambda: None, None)  # type: ignore[method-assign,assignment]
        for raw in (*raws, *(damaged(rng.choice(raws), rng) for _ in range(10 * EACH))):
            with suppress(DecodeError, SwarmError):
                turn = text_pb2.Turn.FromString(raw)
                talk = Talk(client, wishes_of(turn.options))
                async for _ in pieces_of(talk, turn):
                    pass
