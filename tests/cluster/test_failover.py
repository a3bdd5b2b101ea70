"""Workers of real Rigs are killed while somebody chats: the answer goes on, and stays what it was."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cluster import agents, returning, spare, worker_process
from cluster.target import Target

pytest.importorskip("torch")

from benchmarks.rigs_here import CREDENTIALS, RigsHere, rigs_here
from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.client.sampling import Sampling

TARGET = Target("nano", "fp32", sessions=2, context=1024, spread=True)
MEMORY = 60 * 2**20
"""Of a Rig: none holds the model alone, and of three each Block has room for a copy."""
TEXT = "The sky is blue. The grass is green. The sky is"
TOKENS = 60
DEADLINE_S = 90.0


@asynccontextmanager
async def talking(
    folder: Path, monkeypatch: pytest.MonkeyPatch, target: Target, rigs: str, warm: bool = False
) -> AsyncIterator[tuple[RigsHere, Client, list[str]]]:
    """A swarm of Rigs, a client of it, and what the client was told."""
    monkeypatch.setattr(agents, "MEASURE_S", 0.2)
    monkeypatch.setattr(returning, "SETTLED_S", 0.5)
    monkeypatch.setattr(spare, "LATER_S", 0.0)
    monkeypatch.setattr(worker_process, "STEADY_S", 0.0)
    told: list[str] = []
    async with rigs_here(target, folder) as swarm:
        for rig in rigs:
            await swarm.join(rig, MEMORY, spare=warm)
        await swarm.whole(target.standby)
        async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS, told.append) as client:
            yield swarm, client, told


async def answer(client: Client, then: Callable[[], None] = lambda: None) -> list[int]:
    """The tokens of an answer, in the midst of which something happens."""
    conversation = client.conversation(speculate=False)
    tokens: list[int] = []
    async with asyncio.timeout(DEADLINE_S):
        async for piece in conversation.generate(client.tokenizer.encode(TEXT), Sampling(temperature=0.0), TOKENS):
            tokens.append(piece.token)
            if len(tokens) == TOKENS // 2:
                then()
    await conversation.close()
    return tokens


def stop(swarm: RigsHere, rig: str) -> None:
    os.kill(swarm.workers[rig].pid, signal.SIGSTOP)


@pytest.mark.timeout(170)
async def test_standby_copies_take_over_from_a_worker_that_is_killed_or_stopped_and_no_token_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, monkeypatch, replace(TARGET, standby=True), "abc") as (swarm, client, told):
        right = await answer(client)
        assert len(right) == TOKENS
        for place, harm in ((0, RigsHere.kill), (-1, stop)):
            plan = await swarm.whole(standby=True)
            told.clear()
            lost = plan.worker(plan.routes[0].stages[place].worker).rig
            assert await answer(client, partial(harm, swarm, lost)) == right
            assert told and told[-1].startswith(f"{lost} lost; continuing on "), told
            if harm is stop:
                os.kill(swarm.workers[lost].pid, signal.SIGCONT)


@pytest.mark.timeout(170)
async def test_a_killed_worker_is_back_from_the_warm_one_with_what_it_had_and_no_token_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "BACK_S", 30.0)
    async with talking(tmp_path, monkeypatch, TARGET, "ab", warm=True) as (swarm, client, told):
        right = await answer(client)
        plan, warm = swarm.plan, swarm.spares["b"].pid
        assert await answer(client, lambda: swarm.kill("b")) == right
        assert swarm.workers["b"].pid == warm and swarm.plan.routes == plan.routes
        assert len(told) == 1 and told[0].startswith("a worker of b was lost; continuing on a and b ("), told


@pytest.mark.timeout(170)
async def test_what_no_longer_fits_waits_with_a_clear_word_and_goes_on_when_its_rig_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "BACK_S", 0.0)
    async with talking(tmp_path, monkeypatch, TARGET, "ab") as (swarm, client, told):
        right = await answer(client)
        gone: list[asyncio.Task[None]] = []
        asked = asyncio.create_task(answer(client, lambda: gone.append(asyncio.create_task(swarm.stop("b")))))
        async with asyncio.timeout(DEADLINE_S):
            while not told:
                await asyncio.sleep(0.05)
        assert "worker b/cpu (stage " in told[0] and "waiting for `swarm join ...`" in told[0], told
        await asyncio.gather(*gone)
        await swarm.join("b", MEMORY)
        assert await asked == right and told[-1].startswith("a worker of b was lost; continuing on "), told
