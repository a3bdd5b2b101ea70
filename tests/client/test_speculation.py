"""Drafts change how fast a text comes and no token of it, whatever is guessed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

pytest.importorskip("torch", reason="the Workers of these tests need it")

from plans import odd_experts_on, plan_of
from questions import GREEDY, answer, questions
from swarm_processes import InMemory, until, workers_here

from swarm.client.client import Client, open_client
from swarm.client.conversation import Conversation
from swarm.client.draft import Guess
from swarm.client.draft_length import DraftLength
from swarm.client.sampling import Sampling
from swarm.wire.credentials import Credentials

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORIES = questions("stories")
STORY = STORIES[0]
SAMPLINGS = [
    GREEDY,
    Sampling(temperature=0.8, seed=3),
    Sampling(temperature=1.3, top_p=0.9, seed=5),
    Sampling(temperature=3.0, seed=1),  # the best Candidates seldom decide here; hundreds of tokens on, last bits would
]


@dataclass
class Told:
    """Guesses what it was told, some of it wrongly."""

    text: Sequence[int]
    wrong: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    length: int = 0

    def follow(self, tokens: Sequence[int]) -> None:
        self.length = len(tokens)

    def guess(self, most: int) -> Guess:
        right = self.text[self.length : self.length + most]
        return Guess(tuple(5 if self.dice.random() < self.wrong else token for token in right), 8)


class Always(DraftLength):
    """Sends so many, whether it pays or not."""

    drafted = 6

    def best(self, ground: int) -> int:
        return self.drafted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[Client]:
    plan = plan_of([2, 5, 8], odd_experts_on("w3", range(3, 6)), sessions=4, context=512)
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        yield client


async def plainly(client: Client, prompt: Sequence[int], tokens: int, sampling: Sampling) -> list[int]:
    talk = client.conversation(speculate=False)
    said = await answer(talk, prompt, tokens, sampling)
    assert talk.answer.drafted == talk.answer.kept == 0 and talk.answer.traversals == len(said) - 1
    await talk.close()
    return said


def drafting(client: Client, text: Sequence[int], wrong: float, drafted: int = 6) -> Conversation:
    length = Always(client.plan.model.config)
    length.drafted = drafted
    return Conversation(client, client.tokenizer, Told(text, wrong), length)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
async def test_text_is_that_of_no_speculation_at_any_temperature(client: Client, sampling: Sampling, wrong: float) -> None:
    said = await plainly(client, STORY.prompt, 40, sampling)
    talk = drafting(client, [*STORY.prompt, *said], wrong)
    assert await answer(talk, STORY.prompt, 40, sampling) == said
    if wrong == 0.0 and sampling.temperature < 2.0:
        assert talk.answer.traversals <= 7 and talk.answer.kept == talk.answer.drafted > 30
    if wrong == 1.0:
        assert talk.answer.kept < 5 < talk.answer.drafted
    again = await answer(talk, [*STORY.prompt, *said[:20]], 10, sampling)  # the Stages hold nothing that was not said
    assert again == said[20:30]
    await talk.close()


async def test_log_probabilities_are_those_of_the_tokens_drawn(client: Client) -> None:
    plain, talk = client.conversation(speculate=False), drafting(client, [*STORY.prompt, *STORY.answer], 0.2)
    await answer(plain, STORY.prompt, 40)
    await answer(talk, STORY.prompt, 40)
    assert talk.answer.logprobs == pytest.approx(plain.answer.logprobs, abs=1e-4)
    await asyncio.gather(plain.close(), talk.close())


async def test_an_answer_ends_where_it_ends_also_inside_a_draft(client: Client) -> None:
    eos = next(iter(client.tokenizer.eos_ids))
    whole = await plainly(client, STORY.prompt, 200, GREEDY)
    assert whole[-1] == eos, "this story ends"
    talk = drafting(client, [*STORY.prompt, *whole, *range(20, 60)], 0.0, drafted=16)
    assert await answer(talk, STORY.prompt, 200) == whole
    assert talk.tokens == [*STORY.prompt, *whole]
    for limit in (1, 2, 5):
        assert await answer(talk, STORY.prompt, limit) == whole[:limit]
        assert talk.tokens == [*STORY.prompt, *whole[:limit]]
    await talk.close()


async def test_what_is_looked_up_changes_no_token_of_a_repeated_text(client: Client) -> None:
    talk, plain = client.conversation(), client.conversation(speculate=False)
    prompt = STORY.prompt * 3
    said = await answer(plain, prompt, 100)
    assert await answer(talk, prompt, 100) == said
    await asyncio.gather(talk.close(), plain.close())


async def test_an_interrupted_draft_leaves_nothing_behind(client: Client) -> None:
    talk = drafting(client, [*STORY.prompt, *STORY.answer], 0.1)
    for tokens in (1, 9, 30):
        telling = asyncio.create_task(answer(talk, STORY.prompt, len(STORY.answer)))
        await until(lambda: len(talk.answer.tokens) >= tokens and talk.answer.finish_reason == "cancelled", "no token came")  # noqa: B023
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling
        assert talk.tokens == [*STORY.prompt, *talk.answer.tokens]
    assert await answer(talk, STORY.prompt, len(STORY.answer)) == STORY.answer
    await talk.close()
