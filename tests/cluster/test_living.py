"""Real Workers over a day: what they write down, and what they do when their memory is wanted back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from real_workers import CREDENTIALS, RealSwarm, real_swarm

from cluster.target import Target

pytest.importorskip("torch")

from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.client.sampling import Sampling
from swarm.errors import SwarmError
from swarm.logs.file import LogFile
from swarm.logs.reader import Reader
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

MEMORY = 400 * 2**20
QUESTION = "The sky is blue. The grass is green. The sky is"
GREEDY = Sampling(temperature=0.0)


async def answer(client: Client, question: str) -> str:
    conversation = client.conversation()
    try:
        pieces = [piece async for piece in conversation.generate(client.tokenizer.encode(question), GREEDY, 12, ())]
    finally:
        await conversation.close()
    return "".join(piece.text for piece in pieces)


def held(swarm: RealSwarm) -> int:
    return sum(w["memory"]["weights_bytes"] + w["memory"]["kv_bytes"] for w in swarm.coordinator.status()["workers"])


async def unload(swarm: RealSwarm) -> pb.UnloadReply:
    channel = CREDENTIALS.channel(swarm.address)
    try:
        reply: pb.UnloadReply = await SwarmServiceStub(channel).Unload(pb.UnloadRequest())
    finally:
        await channel.close(None)
    return reply


@pytest.mark.timeout(170)
async def test_an_unloaded_model_comes_back_with_the_next_question_and_logs_hold_no_prompt(tmp_path: Path) -> None:
    with LogFile(tmp_path / "head" / "logs", "head", "coordinator"):
        async with real_swarm(Target("nano", "fp32", sessions=2, context=256), tmp_path) as swarm:
            for rig in ("a", "b"):
                await swarm.join(rig, MEMORY)
            told: list[str] = []
            async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS) as early:
                said = await answer(early, QUESTION)
                before = held(swarm)
                assert (await unload(swarm)).bytes == before > 0 and held(swarm) == 0
                assert await answer(early, QUESTION) == said  # a chat that was open before
                await unload(swarm)
                source = SwarmPlan(swarm.address, CREDENTIALS, told.append)
                async with open_client(source, CREDENTIALS) as late:  # and one that comes later
                    assert await answer(late, QUESTION) == said
            assert "is bringing nano back" in told[0]
            with pytest.raises(SwarmError):
                [_ async for _ in swarm.coordinator.change(lambda _: Target("no-such-model"))]
    logs = "\n".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".log", ".jsonl"))
    assert said.strip() and said.strip() not in logs
    assert not [word for word in ("grass", "sky", "blue") if word in logs]
    levels = {(r.process, r.level) for rig in ("a", "b", "head") for r in Reader(tmp_path / rig / "logs").new()}
    assert {("worker cpu", "info")} <= levels
    for what in ("serves at", "loads its part of nano", "epoch", "given back"):
        assert what in logs, what


async def test_two_who_ask_at_once_bring_the_model_back_once(tmp_path: Path) -> None:
    async with real_swarm(Target("nano", "fp32", sessions=2, context=256), tmp_path) as swarm:
        await swarm.join("a", MEMORY)
        await unload(swarm)

        async def ask() -> str:
            async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS) as client:
                return await answer(client, QUESTION)

        first, second = await asyncio.gather(ask(), ask())
        assert first == second and len(swarm.loads) == 2
