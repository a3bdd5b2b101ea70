"""A Device that somebody else uses is noticed while it serves, with a real Worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from long_chat import Chat
from real_workers import CREDENTIALS, RealSwarm, real_swarm

from cluster import agents
from cluster.pace import SLOWER
from cluster.target import Target
from swarm.client.client import open_client
from swarm.client.plan_source import SwarmPlan

pytest.importorskip("torch")

STOPPED_S, RUNNING_S = 0.09, 0.01
DEADLINE_S = 120.0


@asynccontextmanager
async def somebody_else_uses_it(pid: int) -> AsyncIterator[None]:
    """Nine tenths of the time the process does not get to run."""

    async def take_turns() -> None:
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(STOPPED_S)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(RUNNING_S)

    taking = asyncio.create_task(take_turns())
    try:
        yield
    finally:
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await taking
        os.kill(pid, signal.SIGCONT)


async def looked(swarm: RealSwarm, times: int, chat: Chat) -> None:
    """Wait until the Coordinator has seen the chat go on so many times."""
    seen = {0}
    while len(seen) <= times:
        await chat.goes_on()
        seen.add(swarm.coordinator.status()["workers"][0]["tokens"])


def slowed(swarm: RealSwarm) -> float:
    return float(swarm.coordinator.status()["workers"][0]["measured"]["slowed"])


@pytest.mark.timeout(300)
async def test_a_worker_that_gets_a_tenth_of_its_time_is_named_while_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "MEASURE_S", 0.2)
    async with real_swarm(Target("nano", "fp32", sessions=1, context=4096), tmp_path) as swarm:
        await swarm.join("a", 300 * 2**20)
        async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS) as client:
            chat = Chat(client, client.tokenizer.encode("The sky is blue. The grass is green. The sky is"))
            await looked(swarm, 3, chat)
            async with somebody_else_uses_it(swarm.coordinator.status()["workers"][0]["pid"]), asyncio.timeout(DEADLINE_S):
                while slowed(swarm) < SLOWER:
                    await chat.goes_on()
            async with asyncio.timeout(DEADLINE_S):
                while not any("a cpu reads" in note and "times slower than it did" in note for note in swarm.plan.notes):
                    await asyncio.sleep(0.05)
            await chat.stopped()
