"""Copies of experts over real sockets: they share the work, and a holder that is gone or silent costs nothing."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from plans import odd_experts_on, plan_of
from questions import GREEDY, answer, ask_all, questions
from swarm_processes import InMemory, processes, status_at, workers_here
from wider_plans import routes_plan, with_copies

from swarm.client.client import open_client
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.worker import copy_holder
from swarm.worker.copy_holder import CopyHolder
from swarm.worker.shards import Shards

STORY = questions("stories")[0]
ALL = [("w1", b, range(8)) for b in range(8)]


def copied() -> Plan:
    """Everything on w0, and all experts on w1 too."""
    return with_copies(routes_plan([("w0", 8)], spare=["w1"]), ALL)


async def test_the_holder_of_copies_computes_its_share_and_the_text_stays() -> None:
    plan, asked = copied(), questions("eval")[:8]
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        assert await ask_all(client, asked, 4) == [q.answer for q in asked]
        busy = [workers[name].status().busy_s for name in ("w0", "w1")]
        assert 0 < busy[1] < busy[0]


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_the_holder_of_copies_lost_mid_answer_costs_no_token_and_no_pause(tmp_path: Path, death: signal.Signals) -> None:
    plan = copied()
    with processes(plan, tmp_path) as swarm:
        source = InMemory(plan)
        async with open_client(source, Credentials()) as client:
            talk, times = client.conversation(), [time.monotonic()]
            async for _ in talk.generate(STORY.prompt, GREEDY, len(STORY.answer)):
                times.append(time.monotonic())
                if len(talk.answer.tokens) == 20:
                    status = status_at(plan.worker("w1").address)
                    assert status is not None
                    assert status.busy_s > 0
                    times.append(time.monotonic())
                    swarm.signal("w1", death)
            assert talk.answer.tokens == STORY.answer
            pauses = [b - a for a, b in pairwise(times)][21:]
            assert max(pauses) < 10.0, "a shard's patience was waited for"
            assert not source.reported, "a step failed"
            if death is signal.SIGSTOP:
                swarm.signal("w1", signal.SIGCONT)
            await talk.close()


async def test_a_holder_that_is_back_is_asked_again() -> None:
    plan = copied()
    async with workers_here(plan, only={"w0"}), open_client(InMemory(plan), Credentials()) as client:
        assert await answer(client.conversation(), STORY.prompt, 20) == STORY.answer[:20]
        async with workers_here(plan, only={"w1"}) as back, asyncio.timeout(60):
            while not back["w1"].status().busy_s:
                assert await answer(client.conversation(), STORY.prompt, 20) == STORY.answer[:20]


async def test_a_silent_holder_is_waited_for_once_and_asked_again_when_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, go_on, asked = copied(), threading.Event(), []
    really = Shards._compute_one

    def late(shards: Shards, *rest: Any) -> None:
        asked.append(rest)
        assert go_on.wait(60)
        really(shards, *rest)

    monkeypatch.setattr(copy_holder, "FIRST_S", 0.05)
    monkeypatch.setattr(Shards, "_compute_one", late)
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        talk = client.conversation()
        assert await answer(talk, STORY.prompt, 20) == STORY.answer[:20]
        assert len(asked) == 1
        go_on.set()
        async with asyncio.timeout(60):
            while len(asked) == 1:
                assert await answer(talk, STORY.prompt, 20) == STORY.answer[:20]


async def test_a_holder_that_has_shards_too_is_missed_by_name() -> None:
    plan = with_copies(plan_of([8], odd_experts_on("w1")), [("w1", b, (0, 2)) for b in range(8)])
    source = InMemory(plan)
    source.patience_s = 0.2
    async with workers_here(plan, only={"w0"}), open_client(source, Credentials()) as client:
        with pytest.raises(Exception, match="w1"):
            await answer(client.conversation(), STORY.prompt, 5)


async def test_a_retired_holder_is_no_loss() -> None:
    plan = copied()
    source = InMemory(plan)
    async with workers_here(plan) as workers, open_client(source, Credentials()) as client:
        talk = client.conversation()
        pieces = talk.generate(STORY.prompt, GREEDY, 60)
        for _ in range(10):
            await anext(pieces)
        await workers["w1"].drain(1, 0.3)
        async for _ in pieces:
            pass
        assert talk.answer.tokens == STORY.answer[:60]
        assert not source.reported, "a step failed"
        assert workers["w1"].status().weights_bytes == 0
        before = workers["w1"].status().busy_s
        await asyncio.sleep(0.3)
        assert workers["w1"].status().busy_s == before, "it still computes"


def test_a_holder_is_given_as_long_as_its_recent_answers_tell() -> None:
    holder = CopyHolder()
    assert holder.patience_s(17) == copy_holder.FIRST_S
    for _ in range(20):
        holder.took(10, 1.0)
    assert holder.patience_s(20) == pytest.approx(copy_holder.FACTOR * 2.0)
    assert holder.patience_s(0) == copy_holder.FLOOR_S


def test_a_holder_that_failed_is_left_alone_for_a_moment_and_one_that_owes_an_answer_until_it_came() -> None:
    holder = CopyHolder()
    assert holder.willing(0.0)
    holder.failed(100.0)
    assert not holder.willing(100.5)
    assert holder.willing(100.0 + copy_holder.AGAIN_S)
    holder.asked(1)
    assert not holder.willing(200.0)
    holder.answered(1)
    assert holder.willing(200.0)
    holder.asked(2)
    holder.failed(300.0)
    assert holder.willing(301.0)
