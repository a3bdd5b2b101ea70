"""How long an answer pauses when a Worker that serves it is killed: with standby copies, with a warm Worker, with neither.

python -m benchmarks.failover [KILLS]
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.rigs_here import CREDENTIALS, rigs_here
from cluster import returning, worker_process
from cluster.target import Target
from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.client.sampling import Sampling

TARGET = Target("nano", "fp32", sessions=2, context=1024, spread=True)
MEMORY = 60 * 2**20
"""Of each of three Rigs: none holds the model alone, and each Block has room for one copy."""
BEFORE, TOKENS = 30, 60
TEXT = "The sky is blue. The grass is green. The sky is"
WAYS = ("standby", "warm", "neither")


async def answer(client: Client, prompt: list[int], kill: Callable[[], None] = lambda: None) -> tuple[list[int], float]:
    """The tokens, and the longest time between two of them, in seconds; something is done behind the token `BEFORE`."""
    conversation = client.conversation(speculate=False)
    tokens, longest, last = list[int](), 0.0, time.monotonic()
    async for piece in conversation.generate(prompt, Sampling(temperature=0.0), TOKENS):
        now = time.monotonic()
        if tokens:
            longest = max(longest, now - last)
        tokens.append(piece.token)
        if len(tokens) == BEFORE:
            kill()
        last = time.monotonic()
    await conversation.close()
    return tokens, longest


async def pauses(way: str, kills: int) -> list[float]:
    """The pause of each kill."""
    with tempfile.TemporaryDirectory() as folder:
        async with rigs_here(replace(TARGET, standby=way == "standby"), Path(folder)) as swarm:
            for rig in "abc":
                await swarm.join(rig, MEMORY, spare=rig if way != "neither" else "")
            await swarm.whole(way == "standby")
            told: list[str] = []
            async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS, told.append) as client:
                prompt = client.tokenizer.encode(TEXT)
                right, _ = await answer(client, prompt)
                assert len(right) == TOKENS, "the answer is too short to be disturbed"
                found = []
                for number in range(kills):
                    plan = await swarm.whole(way == "standby")
                    lost = random.Random(number).choice(plan.routes[0].stages).worker
                    tokens, longest = await answer(client, prompt, partial(swarm.kill, plan.worker(lost).rig))
                    assert tokens == right, f"kill {number} of {lost} changed the answer"
                    found.append(longest)
                    print(f"  {way}: {lost} of {len(plan.routes[0].stages)} stages, {longest:.2f} s ({told[-1:]})", file=sys.stderr)
                return found


async def main(kills: int) -> None:
    worker_process.STEADY_S = 0.0  # every kill is the first: a crash loop is not what is measured
    returning.SETTLED_S = 1.0
    print("| a Worker is killed | kills | p50 s | longest s |\n|---|---|---|---|")
    for way in WAYS:
        found = await pauses(way, kills)
        print(f"| {way} | {len(found)} | {median(found):.2f} | {max(found):.2f} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
