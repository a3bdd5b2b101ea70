"""A client that opens many Sessions at once, as fast as it can, and asks a little in each: SIGTERM: it gives them back and ends.

python stranger_process.py ADDRESS COUNT LEASE_S < key        prints `asks` once all were begun
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from questions import GREEDY

from swarm.client import room
from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.errors import SwarmError
from swarm.wire.credentials import Credentials

PROMPT = (1, 415, 2, 7)
TOKENS = 4


async def ask(client: Client) -> None:
    conversation = client.conversation()
    try:
        with contextlib.suppress(SwarmError):  # full: the answer in words is one, too
            async for _ in conversation.generate(PROMPT, GREEDY, TOKENS):
                pass
    finally:
        await conversation.close()


async def main(address: str, count: int, lease_s: float, key: str) -> None:
    room.LEASE_S = lease_s
    credentials = Credentials(key, "a stranger")
    async with open_client(SwarmPlan(address, credentials), credentials) as client:
        asking = asyncio.gather(*(ask(client) for _ in range(count)))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asking.cancel)
        print("asks", flush=True)
        with contextlib.suppress(asyncio.CancelledError):
            await asking


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.stdin.readline().strip()))
