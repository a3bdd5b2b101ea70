"""An answer that goes on while a test does things to the swarm."""

from __future__ import annotations

import asyncio

from swarm.client.client import Client
from swarm.client.conversation import Conversation
from swarm.client.sampling import Sampling

MORE = 20
"""Tokens of an answer before something happens, and after it."""
DEADLINE_S = 90.0


class Chat:
    """One answer that goes on until it is stopped."""

    def __init__(self, client: Client, prompt: list[int]) -> None:
        self.tokens: list[int] = []
        self._task = asyncio.create_task(self._read(client.conversation(speculate=False), prompt))

    async def _read(self, conversation: Conversation, prompt: list[int]) -> None:
        async for piece in conversation.generate(prompt, Sampling(temperature=0.0)):
            self.tokens.append(piece.token)

    async def goes_on(self) -> None:
        """Wait until it has some tokens more."""
        wanted = len(self.tokens) + MORE
        async with asyncio.timeout(DEADLINE_S):
            while len(self.tokens) < wanted and not self._task.done():
                await asyncio.sleep(0.01)
        assert not self._task.done(), "the chat was too short for this test"

    async def stopped(self) -> list[int]:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.tokens
