"""Sessions come and go, Rigs leave and join, for as long as it is told: `make soak MINUTES=30`.

At each rest it notes what the processes hold that are there all the time; runs add up in the folder.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from census import Snapshot, left_over
from chats import Chats
from clear_questions import clear_questions
from growth import Rest, add, by_run, grown, read, table
from network import own_network
from plain_swarm import PlainSwarm
from questions import GREEDY, Question
from rounds import LEASE_S, POLL_S, RECOVER_S, SETTLE_S
from shapes import SHAPES

from swarm.client import room
from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan

CHATS = 4
STAYS = "rig-a"
MOST_FDS, MOST_THREADS, MOST_BYTES = 16, 8, 96 * 2**20
"""More than that from the first third of a run to its last is a leak, in a process that lived through it."""


@dataclass
class Count:
    answers: int = 0
    wrong: int = 0
    turns: int = 0


async def soak(swarm: PlainSwarm, folder: Path, minutes: float, seed: int) -> list[str]:
    """Go on until the time is over; what is left over at the end, in words."""
    room.LEASE_S = LEASE_S
    count, chance, run, started = Count(), Random(seed), f"{time.time():.0f}", time.monotonic()
    await _cycle(swarm, count, chance)
    first = now = await settled(swarm, await swarm.look())
    _note(swarm, folder, first, first, count, run, started)
    while time.monotonic() - started < minutes * 60:
        await _cycle(swarm, count, chance)
        now = await settled(swarm, first)
        _note(swarm, folder, first, now, count, run, started)
    return left_over(first, now)


def _note(swarm: PlainSwarm, folder: Path, first: Snapshot, now: Snapshot, count: Count, run: str, started: float) -> None:
    """Of those only that were there at first and do not come and go."""
    guests = {swarm.owner_pid(rig) for rig in swarm.rigs if rig != STAYS}
    stay = {str(pid): h for pid, h in now.processes.items() if pid in first.processes and pid not in guests and h.role != "relay"}
    add(folder, Rest(run, time.monotonic() - started, count.answers, count.wrong, count.turns, stay))


async def settled(swarm: PlainSwarm, before: Snapshot) -> Snapshot:
    """What is there once nothing is left over any more, or that does not change for the better."""
    deadline = time.monotonic() + SETTLE_S
    while left_over(before, now := await swarm.look()) and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
    return now


async def _cycle(swarm: PlainSwarm, count: Count, chance: Random) -> None:
    """A client comes, asks, goes away in the middle of an answer; meanwhile a Rig leaves and comes back."""
    source, asked = SwarmPlan(swarm.address, swarm.credentials), clear_questions()
    async with asyncio.timeout(2 * RECOVER_S), open_client(source, swarm.credentials) as client:
        chats = Chats([client], asked, CHATS, chance.randrange(2**32))
        try:
            chats.go()
            await _leave_and_return(swarm, chance.choice([rig for rig in swarm.rigs if rig != STAYS]))
            count.turns += 1
            await chats.all_answer_anew()
            await chats.rest()
        finally:
            await chats.stop()
        told = chats.take()
        count.answers += len(told)
        count.wrong += sum(not t.as_it_should_be for t in told)
        await _begin(client, chance.choice(asked))
    await swarm.whole()


async def _leave_and_return(swarm: PlainSwarm, rig: str) -> None:
    await swarm.owner_ends(rig, signal.SIGTERM)
    await swarm.start_rig(rig)


async def _begin(client: Client, question: Question) -> None:
    """An answer of which nobody reads more than the beginning, and whose Session nobody gives back."""
    async for _ in client.conversation().generate(question.prompt, GREEDY, len(question.answer)):
        return


def leaks(rests: list[Rest]) -> list[str]:
    """What grew in any run that had enough rests to say so."""
    found = []
    for run in (run for run in by_run(rests) if len(run) >= 6):
        for role in {held.role for held in run[-1].held.values()}:
            more = grown(run, role)
            if any(m > most for m, most in zip(more, (MOST_FDS, MOST_THREADS, MOST_BYTES), strict=True)):
                found.append(f"a {role} grew by {more[0]} file descriptors, {more[1]} threads, {more[2]} bytes")
    return found


async def _run(folder: Path, minutes: float, seed: int) -> list[str]:
    logs = (folder / "logs" / f"soak-{time.time():.0f}").absolute()
    logs.mkdir(parents=True)
    swarm = PlainSwarm(SHAPES["spread"], logs)
    try:
        await swarm.start()
        return await soak(swarm, folder, minutes, seed)
    finally:
        await swarm.stop()


def main() -> int:
    """Exit 0 where every answer was right and nothing grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no further round after so long (30)")
    parser.add_argument("--seed", type=int, default=1, help="who asks what, and which Rig leaves (1)")
    parser.add_argument("--folder", type=Path, default=Path(".chaos"), help="keeps what was seen (.chaos)")
    given = parser.parse_args()
    own_network()
    given.folder.mkdir(parents=True, exist_ok=True)
    wrong = asyncio.run(_run(given.folder, given.minutes, given.seed))
    rests = read(given.folder)
    print(table(rests))
    wrong += [f"{run[-1].wrong} wrong answers" for run in by_run(rests) if run[-1].wrong] + leaks(rests)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
