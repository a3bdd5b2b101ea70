"""A stranger opens a thousand Sessions at once, and goes away while most of them wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from questions import GREEDY
from schedule import Blow

from faults.swarm_port import Swarm
from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.errors import SwarmError
from swarm.wire.credentials import Credentials

COUNT = 1000
PROMPT = (1, 415, 2, 7)


async def strike(swarm: Swarm, blow: Blow) -> None:
    credentials = Credentials(swarm.credentials.key, "a stranger")  # each has a share of its own, by name
    async with open_client(SwarmPlan(swarm.address, credentials), credentials) as client:
        asking = [asyncio.create_task(_ask(client)) for _ in range(COUNT)]
        await asyncio.wait(asking, timeout=blow.seconds)
        await _cancel(asking)


async def _ask(client: Client) -> None:
    conversation = client.conversation()
    try:
        with contextlib.suppress(SwarmError):  # full: the answer in words is one, too
            async for _ in conversation.generate(PROMPT, GREEDY, 4):
                pass
    finally:
        await conversation.close()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
