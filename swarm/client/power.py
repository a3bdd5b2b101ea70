"""What the cards of a swarm draw while something runs, where their driver tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import fmean

from swarm.client.counters import Counters, Look

LOOK_S = 1.0


@dataclass
class Power:
    """Watts of all cards together, one look after the other; of a CPU nothing is known, so it is not in them."""

    looks: list[float] = field(default_factory=list)

    def see(self, look: Look) -> None:
        """Count a look in which at least one card says what it draws."""
        if total := sum(status.watts for status in look.values()):
            self.looks.append(total)

    @property
    def watts(self) -> float | None:
        """The mean; None where none is known."""
        return fmean(self.looks) if self.looks else None


@asynccontextmanager
async def measured(counters: Counters, first: Look) -> AsyncIterator[Power]:
    """Looks once a second until the block ends; not at all where the first look knows of no watts."""
    power = Power()
    power.see(first)
    looking = asyncio.create_task(_look(counters, power)) if power.looks else None
    try:
        yield power
    finally:
        if looking:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


async def _look(counters: Counters, power: Power) -> None:
    before = len(power.looks)
    while True:
        await asyncio.sleep(LOOK_S)
        power.see(await counters.look())
        del power.looks[:before]  # in which the cards drew less
        before = 0
