"""What a running chat notices when a rig leaves politely: the longest time between two tokens, beside the median.

    python -m benchmarks.leaving [--tokens N] [--rounds N]

Three Workers with a third of the embedded model each, a Coordinator behind its door, all on loopback without Ray. A chat answers
a prompt of so many tokens; then a rig leaves, and joins again, round after round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

from benchmarks.processes import free_ports, percentile
from cluster.agents import WorkerAgents
from cluster.coordinator import Coordinator
from cluster.door import Door, RayDoor
from cluster.roster import DeviceOffer, RigOffer
from cluster.target import Target
from cluster.versions import own_versions
from cluster.worker_process import WorkerOrder, WorkerProcess
from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.client.sampling import Sampling
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2_grpc

CREDENTIALS = Credentials("benchmark")
MEMORY = 120 * 2**20
CONTEXT = 4096
QUIET_TOKENS = 100


class Watched:
    """One answer that goes on, and when each of its tokens came; begun again when the context is full."""

    def __init__(self, client: Client, prompt_tokens: int) -> None:
        self.at: list[float] = []
        sky = client.tokenizer.encode("The sky is blue. The grass is green. ")
        self._prompt = (sky * (prompt_tokens // len(sky) + 1))[:prompt_tokens]
        self._task = asyncio.create_task(self._answer(client))

    async def more(self, tokens: int) -> None:
        """Wait for so many tokens more."""
        wanted = len(self.at) + tokens
        while len(self.at) < wanted and not self._task.done():
            await asyncio.sleep(0.01)
        if self._task.done():
            raise RuntimeError("the answer ended before the rigs had left: ask with fewer --rounds or --tokens")

    def gaps(self, since: float, until: float) -> list[float]:
        """Seconds between tokens of which the later came between two times."""
        return [b - a for a, b in zip(self.at, self.at[1:], strict=False) if since <= b <= until]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _answer(self, client: Client) -> None:
        async for _ in client.conversation(speculate=False).generate(self._prompt, Sampling(temperature=0.0)):
            self.at.append(time.monotonic())


@asynccontextmanager
async def swarm(folder: Path) -> AsyncIterator[tuple[Coordinator, str]]:
    """A Coordinator and the address of its door."""
    target = Target("nano", "fp32", sessions=2, context=CONTEXT, spread=True)
    coordinator = Coordinator(target, WorkerAgents(CREDENTIALS), "a", time.time)
    server = CREDENTIALS.server()
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(coordinator, "here", RayDoor()), server)
    port = CREDENTIALS.bind(server, "127.0.0.1:0")
    await server.start()
    await coordinator.start()
    try:
        yield coordinator, f"127.0.0.1:{port}"
    finally:
        await coordinator.stop()
        await server.stop(None)


async def started(name: str, folder: Path, stack: AsyncExitStack) -> RigOffer:
    """A Rig with one Worker, which ends with the stack."""
    where = f"127.0.0.1:{free_ports(1)[0]}"
    order = WorkerOrder(
        (sys.executable, "-m", "swarm.worker"), f"{name}/cpu", "cpu", 1, MEMORY, where, where,
        CREDENTIALS.key, folder / f"{name}.log", dict(os.environ), folder / "cache",
    )  # fmt: skip
    worker = WorkerProcess(order, _never, print)
    stack.push_async_callback(worker.stop)
    await worker.start()
    return RigOffer(name, name, (DeviceOffer("cpu", MEMORY, where, 1, "a CPU"),), own_versions(), spread=True)


async def _never(address: str) -> None:
    raise RuntimeError(f"the worker at {address} ended")


async def main(tokens: int, rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with swarm(folder) as (coordinator, address), AsyncExitStack() as stack:
            offers = [await started(rig, folder, stack) for rig in "abc"]
            for offer in offers:
                await coordinator.join(offer)
            async with open_client(SwarmPlan(address, CREDENTIALS), CREDENTIALS, print) as client:
                chat = Watched(client, tokens)
                await chat.more(QUIET_TOKENS)
                for number in range(rounds):
                    await _round(number, coordinator, offers[-1], chat)
                await chat.stop()


async def _round(number: int, coordinator: Coordinator, offer: RigOffer, chat: Watched) -> None:
    for what in ("leaves", "joins"):
        before = time.monotonic()
        await chat.more(QUIET_TOKENS)
        quiet, began = chat.gaps(before, time.monotonic()), time.monotonic()
        if what == "leaves":
            [_ async for _ in coordinator.leave(offer.rig_id)]
        else:
            await coordinator.join(offer)
        await chat.more(20)
        moving = chat.gaps(began, time.monotonic())
        print(f"round {number + 1}, {offer.name} {what}: {_said(moving)}; before that: {_said(quiet)}", flush=True)


def _said(gaps: list[float]) -> str:
    ms = [gap * 1e3 for gap in gaps]
    return f"longest {max(ms):.0f} ms, p99 {percentile(ms, 0.99):.0f}, median {median(ms):.1f} between {len(ms)} tokens"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1000, help="of the prompt")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(main(given.tokens, given.rounds))
