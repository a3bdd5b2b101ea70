"""Where an answer's time went: `swarm chat --trace`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rich.text import Text

from swarm.cli import options, output
from swarm.cli.waterfall_picture import waterfall_picture
from swarm.client.answer import Answer
from swarm.client.client import Client
from swarm.client.counters import Counters, Look, hop_times
from swarm.client.waterfall import Waterfall, waterfalls
from swarm.plan import Plan
from swarm.wire.credentials import Credentials


class Tracer:
    """Frames answers between two looks at what the Workers count, which is what tells the Hops between rigs apart."""

    def __init__(self, plan: Plan, credentials: Credentials) -> None:
        self._counters = Counters(plan, credentials)
        self._rigs = {worker.name: worker.rig for worker in plan.workers}
        self._before: Look = {}

    async def begin(self) -> None:
        """An answer begins."""
        self._before = await self._counters.look()

    async def end(self, answer: Answer) -> tuple[Waterfall, ...]:
        """It ended: its mean token on each way that its Session went, the most used first; none where it has one token."""
        return waterfalls(answer.trace, self._rigs, hop_times(self._before, await self._counters.look()))

    async def close(self) -> None:
        """End the channels."""
        await self._counters.close()


@asynccontextmanager
async def tracing(client: Client, target: options.Target, wanted: bool) -> AsyncIterator[Tracer | None]:
    """A Tracer that has begun; None where none is wanted."""
    if not wanted:
        yield None
        return
    tracer = Tracer(client.plan, target.credentials)
    try:
        await tracer.begin()
        yield tracer
    finally:
        await tracer.close()


def trace_document(falls: tuple[Waterfall, ...]) -> dict[str, Any] | None:
    """For `chat --json`: the most used way, and the others; None where there is none."""
    return {**falls[0].document(), "other_ways": [fall.document() for fall in falls[1:]]} if falls else None


def show_trace(falls: tuple[Waterfall, ...]) -> None:
    """On standard error."""
    console = output.stderr()
    for fall in falls:
        console.print(waterfall_picture(fall, "one traversal"))
    if not falls:
        console.print(Text("nothing to trace: the answer has no token behind its first", style="dim"))
