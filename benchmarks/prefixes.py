"""Time to first token of a Session whose system prompt another Session has said already, beside the first one's.

    python -m benchmarks.prefixes [--system 1000] [--question 20] [--rounds 3] [--stages 2] [--folder FOLDER]

Real Workers of one thread each, the 1.5B Mixtral shape in bf16. In each round a system prompt that nobody has said before: the
first Session computes it on every Stage, the second has the first one's pages. Both are asked a question of their own, and for
16 tokens after the first, so that what reading shared pages costs each token is seen as well.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.checkpoint import ensure
from benchmarks.processes import BareClient, described, even_plan, workers
from swarm.client.session import Session
from swarm.wire.v1 import stage_pb2 as pb

NEW = 16


@dataclass(frozen=True)
class Times:
    """Seconds to the first token, and for each after it; positions that were held already."""

    first: float
    each: float
    reused: int


async def asked(client: BareClient, prompt: list[int]) -> tuple[Session, Times]:
    """A new Session that is asked a prompt; it stays open."""
    session = Session(client)
    started = time.monotonic()
    await session.reserve(len(prompt) + NEW)
    session.replace(prompt)
    await _traverse(session)
    first, reused, each = time.monotonic() - started, session.reused, list[float]()
    for number in range(NEW):
        session.append(1 + number)
        started = time.monotonic()
        await _traverse(session)
        each.append(time.monotonic() - started)
    return session, Times(first, median(each), reused)


async def _traverse(session: Session) -> None:
    end = len(session.tokens)
    await session.traverse(end - 1, lambda _, upto: pb.Ask(rows=1, k=2) if upto == end else pb.Ask())


async def measure(folder: Path, stages: int, system: int, question: int, rounds: int) -> list[tuple[Times, Times]]:
    """The first and the second Session of each round."""
    plan = even_plan(described(folder), stages, threads=1, sessions=2, context=system + question + NEW + 32)
    dice, found = random.Random(0), []
    async with workers(plan) as path:
        client = BareClient(path)
        for _ in range(rounds):
            told = [dice.randrange(1, 31000) for _ in range(system)]
            both = [await asked(client, told + [dice.randrange(1, 31000) for _ in range(question)]) for _ in range(2)]
            for session, _ in both:
                await session.close()
            found.append((both[0][1], both[1][1]))
        await client.close()
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", type=int, default=1000)
    parser.add_argument("--question", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "swarm-bench-mixtral-1.5b")
    given = parser.parse_args()
    ensure(given.folder)
    found = asyncio.run(measure(given.folder, given.stages, given.system, given.question, given.rounds))
    for number, (first, second) in enumerate(found, 1):
        print(f"round {number}: first Session {_told(first)}; second {_told(second)}, {second.reused} positions held")
    to_first, each = median(s.first / f.first for f, s in found), median(s.each / f.each for f, s in found)
    print(f"second over first: {to_first:.3f} to the first token, {each:.2f} for each after it")


def _told(times: Times) -> str:
    return f"{times.first:.2f} s to its first token, then {1e3 * times.each:.0f} ms a token"


if __name__ == "__main__":
    main()
