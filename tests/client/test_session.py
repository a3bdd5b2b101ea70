"""A client's Sessions over real sockets: hundreds over two streams, interrupted, queued, scored; numbers like one Stage's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

pytest.importorskip("torch", reason="the Workers of these tests need it")

from plans import odd_experts_on, plan_of
from questions import answer, ask_all, questions
from swarm_processes import InMemory, until, workers_here

from swarm.client.client import Client, open_client
from swarm.client.route import Event
from swarm.client.sampling import Sampling
from swarm.client.session import Session
from swarm.errors import Expired, Gap, Lost, Moved, SwarmError, TooLong, UsageError, WrongKey
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORY, OTHER = questions("stories")[:2]
SAMPLINGS = [
    Sampling(temperature=0.8, seed=3),
    Sampling(temperature=1.5, top_k=40, seed=2**64 - 1),
    Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.2, seed=7),
]


@dataclass
class Swarm:
    plan: Plan
    workers: dict[str, Worker]
    told: list[str]
    client: Client

    def tokens(self) -> int:
        return self.workers["w0"].status().tokens


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three() -> AsyncIterator[Swarm]:
    """Three Stages, some experts elsewhere, room for 4 Sessions of the whole context."""
    plan = plan_of([2, 5, 8], odd_experts_on("w3", range(3, 6)), sessions=4, context=512)
    told: list[str] = []
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials(), told.append) as client:
        yield Swarm(plan, workers, told, client)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one() -> AsyncIterator[Client]:
    plan = plan_of([8])
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        yield client


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
async def test_a_seed_draws_the_same_text_on_one_stage_and_on_three(three: Swarm, one: Client, sampling: Sampling) -> None:
    talks = [client.conversation() for client in (three.client, one, three.client)]
    texts = [await answer(talk, STORY.prompt, 60, sampling) for talk in talks]
    assert texts[0] == texts[1] == texts[2]
    assert texts[0] != STORY.answer[:60]
    for talk in talks:
        await talk.close()


async def test_a_swarm_so_slow_that_a_step_may_take_days_still_takes_it(one: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one.pace, "allowed", lambda rows: 1e5)
    talk = one.conversation()
    assert await answer(talk, STORY.prompt, 5) == STORY.answer[:5]
    await talk.close()


async def test_hundreds_of_sessions_share_two_streams_and_wait_their_turn(three: Swarm) -> None:
    asked = questions("eval")[:150]
    answers = await ask_all(three.client, asked, at_once=150)
    assert [a for a, q in zip(answers, asked, strict=True) if a != q.answer] == []
    assert any("queue" in told for told in three.told)


async def test_an_answer_that_is_interrupted_leaves_a_conversation_that_goes_on_rightly(three: Swarm) -> None:
    talk = three.client.conversation()
    for tokens in (1, 7, 30):
        telling = asyncio.create_task(answer(talk, STORY.prompt, len(STORY.answer)))
        await until(lambda: len(talk.answer.tokens) >= tokens and talk.answer.finish_reason == "cancelled", "no token came")  # noqa: B023
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling
        assert talk.answer.finish_reason == "cancelled"
        assert await answer(talk, OTHER.prompt, 40) == OTHER.answer[:40]
    assert await answer(talk, STORY.prompt, len(STORY.answer)) == STORY.answer
    await talk.close()


@pytest.mark.parametrize("turns", range(6))
async def test_an_interruption_that_comes_together_with_the_answer_is_heard(three: Swarm, turns: int) -> None:
    session = Session(three.client)
    session.replace(STORY.prompt)
    await session.reserve(40)
    ask = pb.Ask(rows=1, k=1)
    await session.traverse(0, lambda _, end: ask if end == len(STORY.prompt) else pb.Ask())
    session.append(7)
    asking = asyncio.create_task(session.traverse(len(STORY.prompt), lambda *_: ask))
    serial = session.serial + 1
    while session.serial < serial:
        await asyncio.sleep(0)
    session._events.put_nowait(Event(serial, answer=pb.StepAnswer(session=session.id, serial=serial)))
    for _ in range(turns):
        await asyncio.sleep(0)
    if asking.cancel():
        with pytest.raises(asyncio.CancelledError):
            await asking
    await session.close()


async def test_a_question_interrupted_before_its_session_is_open_can_be_asked_again(three: Swarm) -> None:
    talk = three.client.conversation()
    for yields in range(0, 40, 4):
        asking = asyncio.create_task(answer(talk, STORY.prompt, 5))
        for _ in range(yields):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert await answer(talk, STORY.prompt, 40) == STORY.answer[:40]
    await talk.close()


@pytest.mark.parametrize(
    "error", [Gap(0, {}), Lost("gone"), Expired("late"), Moved(1), WrongKey("the key was changed")], ids=lambda e: type(e).__name__
)
async def test_a_whole_row_that_cannot_be_had_by_itself_comes_with_another_step(
    one: Client, monkeypatch: pytest.MonkeyPatch, error: SwarmError
) -> None:
    hot = Sampling(temperature=100.0, seed=5)  # the best tokens hardly ever decide
    conversation = one.conversation()
    undisturbed = await answer(conversation, STORY.prompt, 8, hot)
    await conversation.close()
    asked = 0

    async def whole_row(session: Session) -> bytes:
        nonlocal asked
        asked += 1
        raise error

    monkeypatch.setattr(Session, "whole_row", whole_row)
    conversation = one.conversation()
    assert await answer(conversation, STORY.prompt, 8, hot) == undisturbed and asked
    await conversation.close()


async def test_an_edited_chat_computes_only_what_changed(three: Swarm) -> None:
    talk = three.client.conversation()
    said = await answer(talk, STORY.prompt, 50)
    before = three.tokens()
    again = await answer(talk, [*STORY.prompt, *said[:30]], 10)
    assert three.tokens() - before <= 11
    assert again == STORY.answer[30:40]
    await talk.close()


async def test_scores_are_the_same_on_three_stages_in_chunks_and_near_on_one(three: Swarm, one: Client) -> None:
    text = [*STORY.prompt, *STORY.answer, *OTHER.prompt, *OTHER.answer] * 2
    ours, theirs = await three.client.score(text[:400]), await one.score(text[:400])
    assert ours[0] is theirs[0] is None
    assert len(ours) == 400
    assert ours[1:] == pytest.approx(theirs[1:], abs=1e-4)
    assert await three.client.score(text[:1]) == [None]


async def test_what_cannot_be_asked_is_refused_in_a_sentence_and_costs_nothing(three: Swarm) -> None:
    talk = three.client.conversation()
    with pytest.raises(UsageError):
        await answer(talk, [], 5)
    with pytest.raises(TooLong, match="512"):
        await answer(talk, [5] * 512, 5)
    with pytest.raises(UsageError):
        await three.client.score([])
    with pytest.raises(TooLong):
        await three.client.score([5] * 600)
    assert await answer(talk, STORY.prompt, 5) == STORY.answer[:5]
    await talk.close()


async def test_an_answer_fills_the_context_to_its_last_position(three: Swarm) -> None:
    talk = three.client.conversation()
    prompt = (STORY.prompt + STORY.answer[:-1]) * 6
    tokens = await answer(talk, prompt[:508], None, Sampling(temperature=1.0, seed=1))
    assert len(tokens) == 4 or tokens[-1] == 2
    await talk.close()


async def test_closed_conversations_give_all_pages_back(three: Swarm) -> None:
    def given_back() -> bool:
        return not any(worker.status().kv_used_bytes or worker.status().sessions for worker in three.workers.values())

    await until(given_back, "a conversation that was closed is there")
