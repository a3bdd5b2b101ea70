"""Three Worker processes over real sockets, without Ray: what they answer, and what killing them does not change."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from plans import free_addresses, plan_of
from questions import GREEDY, answer, ask_all, questions
from swarm_processes import InMemory, Processes, processes, workers_here

from swarm.client.client import Client, open_client
from swarm.client.plan_source import FilePlan
from swarm.client.sampling import Sampling
from swarm.errors import Lost, WrongKey
from swarm.wire.credentials import Credentials

SEEDED = Sampling(temperature=0.9, top_p=0.95, seed=11)
STORY = questions("stories")[0]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Stages of 3, 3 and 2 Blocks; the entry Worker holds two experts of the last one's Blocks."""
    plan = plan_of([3, 6, 8], [("w0", 6, (0, 5)), ("w0", 7, (2, 3))], sessions=8, context=1280)
    with processes(plan, tmp_path_factory.mktemp("three")) as swarm:
        yield swarm


@asynccontextmanager
async def client_of(swarm: Processes, patience_s: float = 120.0) -> AsyncIterator[Client]:
    source = FilePlan(swarm.plan_file)
    source.patience_s = patience_s
    async with open_client(source, Credentials()) as client:
        yield client


async def one_stage_story(sampling: Sampling) -> list[int]:
    """What one Worker with everything says."""
    plan = plan_of([8], sessions=1)
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        return await answer(client.conversation(), STORY.prompt, len(STORY.answer), sampling)


@pytest.mark.parametrize(("name", "every"), [("eval", 4), ("stories", 1), ("passkey", 1)], ids=["eval", "stories", "passkey"])
async def test_greedy_answers_of_three_processes_are_the_references(three: Processes, name: str, every: int) -> None:
    asked = questions(name)[::every]
    async with client_of(three) as client:
        answers = await ask_all(client, asked, at_once=8)
    wrong = [i for i, (got, q) in enumerate(zip(answers, asked, strict=True)) if got != q.answer]
    assert not wrong


async def test_a_second_question_costs_only_its_own_tokens(three: Processes) -> None:
    async with client_of(three) as client:
        talk = client.conversation()
        said = await answer(talk, STORY.prompt, 40)
        again = [*STORY.prompt, *said, 20, 21, 22]
        await answer(talk, again, 5)
        assert talk.answer.prompt_tokens == len(again)
        assert talk.answer.cached_tokens >= len(STORY.prompt) + len(said) - 1
        await talk.close()


@pytest.mark.parametrize("name", ["w0", "w1", "w2"], ids=["the entry", "the middle", "the last"])
async def test_killing_a_worker_mid_stream_changes_no_token(three: Processes, name: str) -> None:
    want = await one_stage_story(SEEDED)
    async with client_of(three) as client:
        greedy, seeded = client.conversation(), client.conversation()
        drawing = asyncio.create_task(answer(seeded, STORY.prompt, len(STORY.answer), SEEDED))
        async for _ in greedy.generate(STORY.prompt, GREEDY, len(STORY.answer)):
            if len(greedy.answer.tokens) == 20:
                three.kill(name)
                three.start(name)
        assert greedy.answer.tokens == STORY.answer
        assert await drawing == want
    three.wait(name)


async def test_a_stopped_worker_costs_a_pause_and_no_token(three: Processes) -> None:
    async with client_of(three) as client:
        talk = client.conversation()
        pieces = talk.generate(STORY.prompt, GREEDY, len(STORY.answer))
        for _ in range(10):
            await anext(pieces)
        three.signal("w1", signal.SIGSTOP)
        following = asyncio.ensure_future(anext(pieces))
        try:
            done, _ = await asyncio.wait({following}, timeout=0.5)
            assert not done, "a stopped worker answered"
        finally:
            three.signal("w1", signal.SIGCONT)
        await following
        async for _ in pieces:
            pass
        assert talk.answer.tokens == STORY.answer


async def test_a_worker_that_stays_away_ends_the_answer_with_its_name_and_stage(three: Processes) -> None:
    try:
        async with client_of(three, patience_s=1.0) as client:
            talk = client.conversation()
            with pytest.raises(Lost, match=r"worker w1 \(stage 1, blocks \d-\d\) is gone"):
                async for _ in talk.generate(STORY.prompt, GREEDY, len(STORY.answer)):
                    if len(talk.answer.tokens) == 5:
                        three.kill("w1")
            assert talk.answer.tokens[:5] == STORY.answer[:5]
    finally:
        three.start("w1")
        three.wait("w1")


async def test_a_dead_port_is_told_in_one_sentence(tmp_path: Path) -> None:
    plan = plan_of([8])
    (tmp_path / "plan.json").write_text(plan.to_json())
    source = FilePlan(tmp_path / "plan.json")
    source.patience_s = 0.5
    async with open_client(source, Credentials()) as client:
        with pytest.raises(Lost, match="w0"):
            await answer(client.conversation(), STORY.prompt, 5)


async def test_a_wrong_key_is_told_so_at_once() -> None:
    plan = plan_of([4, 8])
    async with workers_here(plan, Credentials("right")):
        async with open_client(InMemory(plan), Credentials("wrong")) as client:
            with pytest.raises(WrongKey, match="--key"):
                await answer(client.conversation(), STORY.prompt, 5)
        async with open_client(InMemory(plan), Credentials("right")) as client:
            assert await answer(client.conversation(), STORY.prompt, 5) == STORY.answer[:5]


async def test_an_owned_worker_ends_when_its_owner_lets_go_of_its_input() -> None:
    address = free_addresses(["w"])["w"]
    arguments = ["--name", "w", "--listen", address, "--device", "cpu", "--threads", "1", "--memory-bytes", str(2**30)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "swarm.worker", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a key\n")
        async with asyncio.timeout(60):
            assert (await process.stdout.readline()).decode().strip() == f"ready {address}"
            process.stdin.close()
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
