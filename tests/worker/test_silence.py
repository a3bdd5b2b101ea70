"""A next Worker that says nothing is found out and named; one that is only slow is not called gone."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc
import grpc.aio
import pytest
from plans import plan_of
from questions import answer, questions
from swarm_processes import processes, until

from swarm.client.client import open_client
from swarm.client.plan_source import FilePlan
from swarm.wire.credentials import Credentials
from swarm.worker import vigil
from swarm.worker.vigil import Vigil

NAMED = "w1 (stage 1, blocks 3-5) is gone (it said nothing for"
SILENT = grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "FLOOR_S", 0.2)


async def test_who_answers_the_question_whether_it_is_there_is_slow_and_not_silent(impatient: None) -> None:
    told: list[str] = []
    asked = asyncio.Event()

    async def there(seconds: float) -> None:
        asked.set()

    watch = Vigil("worker w1", there, told.append)
    loop = asyncio.get_running_loop()
    since = loop.time()
    while loop.time() < since + 0.6 or not asked.is_set():
        watch.look(since)
        await asyncio.sleep(0.01)
    assert not told


async def test_who_answers_nothing_is_silent_after_a_few_of_its_own_steps(impatient: None) -> None:
    told: list[str] = []

    async def nobody(seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise SILENT

    watch = Vigil("worker w1", nobody, told.append)
    for _ in range(8):
        watch.heard(0.1)
    assert watch.allowed_s() == pytest.approx(0.4) and watch.allowed_s(125_000) == pytest.approx(1.4)
    loop = asyncio.get_running_loop()
    since = loop.time() + 0.01
    while not told:
        watch.look(since)
        await asyncio.sleep(0.01)
    assert told[0].startswith("it said nothing for ") and loop.time() - since >= 0.4


async def test_a_worker_that_is_stopped_is_named_with_its_stage_and_the_answer_goes_on_when_it_does(tmp_path: Path) -> None:
    story = questions("stories")[0]
    with processes(plan_of([3, 6, 8], context=1280), tmp_path) as swarm:
        told: list[str] = []
        async with open_client(FilePlan(swarm.plan_file), Credentials(), told.append) as client, asyncio.timeout(60):
            talk = client.conversation(speculate=False)
            asked = asyncio.create_task(answer(talk, story.prompt, len(story.answer)))
            await until(lambda: len(talk.answer.tokens) > 5, "no answer begins")
            swarm.signal("w1", signal.SIGSTOP)
            try:
                await until(
                    lambda: any("w1 (stage 1, blocks 3-5) is gone (it said nothing for" in t for t in told), "nobody is named"
                )
            finally:
                swarm.signal("w1", signal.SIGCONT)
            assert await asked == story.answer


async def test_a_worker_that_stops_for_a_moment_is_not_called_gone(tmp_path: Path) -> None:
    story = questions("stories")[0]
    with processes(plan_of([3, 6, 8], context=1280), tmp_path) as swarm:
        told: list[str] = []
        async with open_client(FilePlan(swarm.plan_file), Credentials(), told.append) as client, asyncio.timeout(60):
            talk = client.conversation(speculate=False)
            asked = asyncio.create_task(answer(talk, story.prompt, len(story.answer)))
            for name in ("w0", "w1", "w2"):
                before = len(talk.answer.tokens)
                await until(lambda before=before: len(talk.answer.tokens) > before, "the answer does not go on")  # type: ignore[misc]
                swarm.signal(name, signal.SIGSTOP)
                await asyncio.sleep(vigil.FLOOR_S / 4)
                swarm.signal(name, signal.SIGCONT)
            assert await asked == story.answer
        assert not any("gone" in each for each in told)
