"""Workers of real Rigs are killed while somebody chats: the answer goes on, and stays what it was."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest
import pytest_asyncio
from claimed_ports import claimed_port
from swarm_processes import until
from undisturbed import SLOW

from cluster import agents, returning, spare, worker_process
from cluster.target import Target

pytest.importorskip("torch")

from benchmarks.rigs_here import CREDENTIALS, RigsHere, rigs_here
from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.client.sampling import Sampling
from swarm.plan import Plan

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
TARGET = Target("nano", "fp32", sessions=2, context=128, spread=True, standby=True)
BARE = replace(TARGET, standby=False)
MEMORY = 60 * 2**20
"""Of a Rig: none holds the model alone, and of three each Block has room for a copy."""
TEXT = "The sky is blue. The grass is green. The sky is"
TOKENS = 60
DEADLINE_S = 120.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RigsHere]:
    """One swarm for all tests here: three Rigs, and one warm process for whichever of them loses its Worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agents, "MEASURE_S", 0.1)
        patch.setattr(returning, "SETTLED_S", 0.5)
        patch.setattr(spare, "LATER_S", 0.0)
        patch.setattr(worker_process, "STEADY_S", 0.0)
        async with rigs_here(TARGET, tmp_path_factory.mktemp("rigs"), claimed_port) as swarm:
            await asyncio.gather(*(swarm.join(rig, MEMORY, "warm") for rig in "abc"))
            yield swarm


@asynccontextmanager
async def talking(swarm: RigsHere, target: Target) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client of the swarm, whole and with what is asked for, and what the client was told."""
    if swarm.coordinator.target != target:
        async for _ in swarm.coordinator.change(lambda _: target):
            pass
    await swarm.whole(target.standby)
    told: list[str] = []

    def tell(what: str) -> None:
        if SLOW not in what:  # a machine that others use is
            told.append(what)

    async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS, tell) as client:
        yield client, told


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


def rigs_lost(told: str) -> set[str]:
    """Of which a Worker was lost, by what a client was told once it went on."""
    what, goes_on, _ = told.partition("; continuing on ")
    return set(re.findall(r"\b[abc]\b", what.replace("a worker of ", ""))) if goes_on else set()


async def next_plan(swarm: RigsHere, epoch: int) -> Plan:
    """The first one after an epoch."""
    async for published in swarm.coordinator.watch():
        if published.plan and published.plan.epoch > epoch:
            return published.plan
    raise AssertionError


def stop(swarm: RigsHere, rig: str) -> None:
    os.kill(swarm.workers[rig].pid, signal.SIGSTOP)


async def test_standby_copies_take_over_from_a_worker_that_is_killed_or_stopped_and_no_token_changes(shared: RigsHere) -> None:
    async with talking(shared, TARGET) as (client, told):
        right = await answer(client)
        assert len(right) == TOKENS
        for place, harm in ((0, RigsHere.kill), (-1, stop)):
            plan = await shared.whole(standby=True)
            told.clear()
            lost = plan.worker(plan.routes[0].stages[place].worker).rig
            try:
                assert await answer(client, partial(harm, shared, lost)) == right
            finally:
                with suppress(ProcessLookupError):
                    os.kill(shared.workers[lost].pid, signal.SIGCONT)
            assert told and lost in rigs_lost(told[-1]), told


async def test_a_killed_worker_is_back_from_the_warm_one_with_what_it_had_and_no_token_changes(
    shared: RigsHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "BACK_S", 60.0)
    later: list[asyncio.Task[Plan]] = []
    async with talking(shared, BARE) as (client, told):
        right = await answer(client)
        told.clear()
        plan, warm = shared.plan, shared.spares["warm"].pid
        lost = plan.worker(plan.routes[0].stages[-1].worker).rig

        def harm() -> None:
            later.append(asyncio.create_task(next_plan(shared, shared.plan.epoch)))
            shared.kill(lost)

        assert await answer(client, harm) == right
        assert shared.workers[lost].pid == warm and (await later[0]).routes == plan.routes
        (lost_then,) = filter(None, map(rigs_lost, told))  # where it takes long, it was told before that it waits
        assert lost in lost_then, told


async def test_sessions_that_run_are_served_again_before_new_ones_when_the_entry_is_lost(
    shared: RigsHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "BACK_S", 60.0)
    ended: list[str] = []
    async with talking(shared, BARE) as (client, told), talking(shared, BARE) as (other, _):
        right = await answer(client)
        told.clear()
        new: list[asyncio.Task[list[int]]] = []

        def more_come_and_the_entry_goes() -> None:
            new.extend(asyncio.create_task(one_that_ends(other, "new")) for _ in range(2))
            shared.kill(shared.plan.worker(shared.plan.routes[0].entry).rig)

        async def one_that_ends(by: Client, name: str, then: Callable[[], None] = lambda: None) -> list[int]:
            tokens = await answer(by, then)
            ended.append(name)
            return tokens

        running = [one_that_ends(client, "running", more_come_and_the_entry_goes), one_that_ends(client, "running")]
        assert await asyncio.gather(*running) == [right] * 2 and told
        assert ended == ["running"] * 2, "a new one was served before"
        assert await asyncio.gather(*new) == [right] * 2


async def test_what_no_longer_fits_waits_with_a_clear_word_and_goes_on_when_its_rig_is_back(
    shared: RigsHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "BACK_S", 0.0)
    async with talking(shared, BARE) as (client, told):
        right = await answer(client)
        told.clear()
        gone: list[asyncio.Task[None]] = []
        asked = asyncio.create_task(answer(client, lambda: gone.extend(asyncio.create_task(shared.stop(rig)) for rig in "bc")))
        async with asyncio.timeout(DEADLINE_S):
            while not told:
                await asyncio.sleep(0.05)
        assert "/cpu (stage " in told[0], told
        await asyncio.gather(*gone)
        await until(lambda: "waiting for `swarm join ...`" in shared.coordinator.published.waiting, "nothing says what is missing")
        await asyncio.gather(*(shared.join(rig, MEMORY, "warm") for rig in "bc"))
        assert await asked == right and " lost; continuing on " in told[-1], told
