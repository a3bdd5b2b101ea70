"""Chats that go on while things happen: who asks, what came, when each token came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from questions import GREEDY, Question

from swarm.client.client import Client
from swarm.client.conversation import Conversation
from swarm.errors import SwarmError

LONG = 20
"""Tokens of an answer that something can happen in the middle of."""
AFTER_ERROR_S = 0.5
IN_A_ROW = 3
"""Questions to one Session."""


@dataclass
class Told:
    """One answer; `times` has when it was asked, and then when each token came (seconds, growing)."""

    question: Question
    times: list[float]
    tokens: list[int] = field(default_factory=list)
    error: str = ""
    over: bool = False

    @property
    def as_it_should_be(self) -> bool:
        return not self.error and self.tokens == self.question.answer

    def longest_pause(self, since: float) -> float:
        """Seconds between two tokens of which the second came after `since`, or did not come yet."""
        times = self.times if self.over else [*self.times, time.monotonic()]
        return max((b - a for a, b in pairwise(times) if b > since), default=0.0)


class Chats:
    """So many at once, over one client each two; they pause between two answers when told to."""

    def __init__(self, clients: Sequence[Client], asked: Sequence[Question], count: int, seed: int) -> None:
        self._clients, self._asked = clients, asked
        self._going = [asyncio.Event() for _ in range(count)]
        self._told: list[list[Told]] = [[] for _ in range(count)]
        self._quiet = [asyncio.Event() for _ in range(count)]
        self._tasks = [asyncio.create_task(self._chat(number, Random(f"{seed}:{number}"))) for number in range(count)]

    def go(self) -> None:
        for going in self._going:
            going.set()

    async def rest(self) -> None:
        """Until all answers under way are complete, and all Sessions given back."""
        for going in self._going:
            going.clear()
        await asyncio.gather(*(quiet.wait() for quiet in self._quiet))
        self._check()

    async def reach(self, tokens: int) -> None:
        """Until one is so far in a long answer."""
        while not any(
            t and not t[-1].over and len(t[-1].tokens) >= tokens and len(t[-1].question.answer) >= LONG for t in self._told
        ):
            self._check()
            await asyncio.sleep(0.002)

    async def all_answer_anew(self) -> None:
        """Until each has begun another answer, and completed it; who did rests, so that the others are soon as far."""
        wanted = [len(told) + 1 for told in self._told]
        while any(going.is_set() for going in self._going):
            for going, told, want in zip(self._going, self._told, wanted, strict=True):
                if len(told) > want or (len(told) == want and told[-1].over):
                    going.clear()
            self._check()
            await asyncio.sleep(0.01)

    def take(self) -> list[Told]:
        """All answers since this was asked before; only for chats that rest."""
        taken = [told for each in self._told for told in each]
        for each in self._told:
            each.clear()
        return taken

    def under_way(self) -> list[Told]:
        """Answers that are not complete."""
        return [told[-1] for told in self._told if told and not told[-1].over]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _check(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def _chat(self, number: int, chance: Random) -> None:
        client, going = self._clients[number % len(self._clients)], self._going[number]
        while True:
            conversation = client.conversation(speculate=number % 2 == 1)
            for _ in range(IN_A_ROW):
                if not going.is_set():
                    break
                self._quiet[number].clear()
                await self._ask(conversation, chance.choice(self._asked), self._told[number])
            await conversation.close()
            if not going.is_set():
                self._quiet[number].set()
            await going.wait()

    async def _ask(self, conversation: Conversation, question: Question, told: list[Told]) -> None:
        told.append(answer := Told(question, [time.monotonic()]))
        try:
            async for piece in conversation.generate(question.prompt, GREEDY, len(question.answer)):
                answer.times.append(time.monotonic())
                if piece.token >= 0:
                    answer.tokens.append(piece.token)
        except SwarmError as error:
            answer.error = f"{type(error).__name__}: {error}"
            await asyncio.sleep(AFTER_ERROR_S)
        finally:
            answer.over = True
