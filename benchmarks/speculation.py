"""Repetitive text with speculation over without, on two Workers with 5 ms added to each Hop; the texts must be equal.

    python -m benchmarks.speculation [--again 3] [--rounds 3]

In one chat the embedded model is asked for the same story again and again; the first telling is not counted. The limit is one
traversal for `1 + MOST` tokens. Rounds alternate, so that a machine that drifts drifts for both.
"""

from __future__ import annotations

import argparse
import asyncio
from statistics import median

from benchmarks.unequal import Shape, running
from swarm.client.answer import Answer
from swarm.client.client import Client, open_client
from swarm.client.messages import Message
from swarm.client.plan_source import FilePlan
from swarm.client.sampling import Sampling
from swarm.weights.describe import describe
from swarm.wire.credentials import Credentials

QUESTION = "Tell me a story."


async def told(client: Client, again: int, speculate: bool) -> list[Answer]:
    """The answers of one chat behind its first, best token after best token."""
    talk, said, answers = client.conversation(speculate), list[int](), list[Answer]()
    for _ in range(1 + again):
        asked = (
            client.chat_format.extend(said, [Message("user", QUESTION)])
            if said
            else client.chat_format.prompt([Message("user", QUESTION)])
        )
        async for _ in talk.generate(asked, Sampling(temperature=0.0)):
            pass
        said = [*asked, *talk.answer.tokens]
        answers.append(talk.answer)
    await talk.close()
    return answers[1:]


async def measure(again: int, rounds: int) -> dict[bool, list[list[Answer]]]:
    """Chats without and with speculation, in turns."""
    shape = Shape("two", threads=(1, 1), routes=((4, 8),), delay_s=0.005, context=1024)
    async with running(shape, describe("nano", "fp32")) as swarm, open_client(FilePlan(swarm.path), Credentials()) as client:
        chats: dict[bool, list[list[Answer]]] = {False: [], True: []}
        for _ in range(rounds):
            for speculate, found in chats.items():
                found.append(await told(client, again, speculate))
    return chats


def rate(chat: list[Answer]) -> float:
    """Tokens a second behind each answer's first."""
    return sum(len(a.tokens) - 1 for a in chat) / sum((len(a.tokens) - 1) / a.tokens_per_s for a in chat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--again", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    chats = asyncio.run(measure(given.again, given.rounds))
    without, drafted = chats[False][0], chats[True][0]
    texts = [[a.tokens for a in chat] for found in chats.values() for chat in found]
    assert all(text == texts[0] for text in texts), "a draft changes no token"
    rates = {speculate: median(rate(chat) for chat in found) for speculate, found in chats.items()}
    for name, chat in (("without", without), ("with", drafted)):
        counts = (sum(len(a.tokens) for a in chat), *(sum(getattr(a, n) for a in chat) for n in ("traversals", "drafted", "kept")))
        print("{}: {} tokens, {} traversals, drafted {}, kept {}".format(name, *counts))
    print(f"tokens/s: {rates[False]:.1f} without, {rates[True]:.1f} with; ratio {rates[True] / rates[False]:.2f}")


if __name__ == "__main__":
    main()
