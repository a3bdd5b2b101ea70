"""Rigs with real Workers come and go while somebody chats: only what must move moves, and the text stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from long_chat import Chat
from real_workers import CREDENTIALS, RealSwarm, real_swarm

from cluster import agents
from cluster.planner.moving import moved_bytes
from cluster.target import Target
from swarm.plan import Plan

pytest.importorskip("torch")

from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.client.sampling import Sampling

TARGET = Target("nano", "fp32", sessions=2, context=4096, spread=True)
MEMORY = 250 * 2**20


@pytest.fixture
async def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RealSwarm]:
    monkeypatch.setattr(agents, "MEASURE_S", 0.2)
    async with real_swarm(TARGET, tmp_path) as found:
        yield found


async def undisturbed(client: Client, prompt: list[int], count: int) -> list[int]:
    """The same answer while nothing changes."""
    conversation = client.conversation()
    tokens = [piece.token async for piece in conversation.generate(prompt, Sampling(temperature=0.0), count)]
    await conversation.close()
    return tokens


def pids(swarm: RealSwarm) -> dict[str, int]:
    return {w["name"]: w["pid"] for w in swarm.coordinator.status()["workers"]}


def exactly_the_differences(swarm: RealSwarm, before: Plan, after: Plan) -> list[int]:
    """The bytes that all Workers loaded for each Plan from one to another, each Worker just what it lacked."""
    if after.epoch == before.epoch:
        return []
    loaded, previous = swarm.loads[after.epoch], swarm.plans[after.follows]
    assert loaded == moved_bytes(previous, after)
    return [*exactly_the_differences(swarm, before, previous), sum(loaded.values())]


@pytest.mark.timeout(170)
async def test_a_rig_joins_and_leaves_under_load_and_only_the_difference_between_the_plans_is_loaded(swarm: RealSwarm) -> None:
    for rig in ("a", "b"):
        two = await swarm.join(rig, MEMORY)
    everything = sum(w.weights_bytes for w in two.workers)
    async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS) as client:
        prompt = client.tokenizer.encode("The sky is blue. The grass is green. The sky is")
        chat, before = Chat(client, prompt), pids(swarm)
        await chat.goes_on()
        three = await swarm.join("c", MEMORY)
        await chat.goes_on()
        assert {w.rig for w in three.workers} == {"a", "b", "c"}
        assert 0 < max(exactly_the_differences(swarm, two, three)) < everything
        assert before.items() <= pids(swarm).items()

        [_ async for _ in swarm.coordinator.leave("c")]
        await chat.goes_on()
        assert 0 < max(exactly_the_differences(swarm, three, swarm.plan)) < everything
        assert pids(swarm) == before
        said = await chat.stopped()
        assert said == await undisturbed(client, prompt, len(said))
