"""The embedded model's recorded questions and answers, and how a client is asked them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.client.client import Client
from swarm.client.conversation import Conversation
from swarm.client.sampling import Sampling

GREEDY = Sampling(temperature=0.0)
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Question:
    prompt: list[int]
    answer: list[int]
    """What the model answers in fp32, best token after best token, as transformers computed it."""


def questions(name: str) -> list[Question]:
    """The lines of `eval`, `stories` or `passkey`."""
    raw = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    return [Question(r["prompt_tokens"], r["reference_tokens"]) for r in raw]


async def answer(
    conversation: Conversation, prompt: Sequence[int], max_tokens: int | None = None, sampling: Sampling = GREEDY
) -> list[int]:
    """The tokens of a whole answer."""
    async for _ in conversation.generate(prompt, sampling, max_tokens):
        pass
    return conversation.answer.tokens


async def ask_all(client: Client, asked: Sequence[Question], at_once: int) -> list[list[int]]:
    """Each question in a conversation of its own, so many at once."""
    answers: dict[int, list[int]] = {}
    left = list(range(len(asked)))

    async def ask() -> None:
        while left:
            number = left.pop(0)
            conversation = client.conversation()
            answers[number] = await answer(conversation, asked[number].prompt, len(asked[number].answer))
            await conversation.close()

    await asyncio.gather(*(ask() for _ in range(at_once)))
    return [answers[number] for number in range(len(asked))]
