"""Chats in greedy fp32 that must not notice what a test does to their Workers meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from questions import ask_all, questions
from swarm_processes import InMemory

from swarm.client.client import open_client
from swarm.client.session import HELD_BACK
from swarm.plan import Plan
from swarm.wire.credentials import Credentials

STORIES = questions("stories")
WAITING, SLOW = ("the swarm is full: ", HELD_BACK), " is slow: "
"""What may be told: a new chat waits for room like everybody, and a machine that others use is slow."""


@asynccontextmanager
async def chatting(plan: Plan, credentials: Credentials | None = None) -> AsyncIterator[None]:
    """One chat after the other, from before the block to after it: each text is the recorded one, and no loss was told."""
    told: list[str] = []
    answered, over = asyncio.Event(), asyncio.Event()

    async def chat() -> None:
        async with open_client(InMemory(plan), credentials or Credentials(), told.append) as client:
            number = 0
            while not over.is_set() or number < 2:
                story = STORIES[number % 2]
                assert await ask_all(client, [story], at_once=1) == [story.answer], "the text changed"
                number += 1
                answered.set()

    chats = asyncio.create_task(chat())
    await asyncio.wait({chats, asyncio.create_task(answered.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if not chats.done():
            yield
    finally:
        over.set()
        async with asyncio.timeout(120):
            await chats
    losses = [what for what in told if not what.startswith(WAITING) and SLOW not in what]
    assert not losses, losses
