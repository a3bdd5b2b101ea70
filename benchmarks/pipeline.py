"""Whether every Stage is busy: prompts that overlap, answers that go on beside a prompt, and many Sessions.

    python -m benchmarks.pipeline [--prompt 2048] [--running 4] [--sessions 8] [--rounds 3] [--dtype auto] [--folder FOLDER]

The 1.5B shape, real Worker processes of one thread each: one of them holding all Blocks, and two holding half each. Both stay
up, and the rounds of what is compared alternate between them, so that a machine that drifts drifts for both. Where others use
its cores too, two threads are not twice one, and tokens/s say little: the share of the time that each Stage was computing says
whether Stages overlap. The sum of the shares is what two Stages give over one where each has a core of its own. Prompts are cut
by what starting a chunk takes here, which is measured first, as the planner measures it in a swarm.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.checkpoint import ensure
from benchmarks.processes import BareClient, described, even_plan, level_cut, percentile, unseen, workers
from swarm.client.session import Session
from swarm.plan import START_ROWS, Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1 import worker_pb2 as worker_pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub

SHORT = 16
"""Prompt tokens of the Sessions that answer."""
QUIET = 24
"""Tokens of each running Session before the prompt arrives."""
FEW, MANY = 64, 256
"""Prompt tokens, each in one chunk: what does not grow from one to the other is starting it."""
TAIL = 512
"""Positions beyond the prompt; a running Session may use all that it has."""


@dataclass(frozen=True)
class Swarm:
    """Workers that serve, and a client of theirs."""

    plan: Plan
    client: BareClient

    async def session(self, prompt: int) -> Session:
        """A new Session that has all positions and a prompt which no Stage has seen."""
        session = Session(self.client)
        await session.reserve(self.plan.context)
        session.replace(unseen(prompt))
        return session

    async def worked(self) -> dict[str, tuple[float, float]]:
        """Each Worker's seconds of computing, and since it began."""
        found = {}
        for spec in self.plan.workers:
            async with Credentials().channel(spec.address) as channel:
                status = await WorkerServiceStub(channel).Status(worker_pb.WorkerStatusRequest())
            found[spec.name] = status.busy_s, status.up_s
        return found


@asynccontextmanager
async def serving(plan: Plan, cache: Path | None = None) -> AsyncIterator[Swarm]:
    """The Plan's Workers, which serve."""
    async with workers(plan, cache) as path:
        client = BareClient(path)
        try:
            yield Swarm(plan, client)
        finally:
            await client.close()


async def traverse(session: Session) -> float:
    """Send what is new and wait for the last token's answer; the seconds it took."""
    started, end = time.monotonic(), len(session.tokens)
    await session.traverse(end - 1, lambda _, upto: pb.Ask(rows=1, k=2) if upto == end else pb.Ask())
    return time.monotonic() - started


async def prefill(swarm: Swarm, prompt: int) -> tuple[float, list[float]]:
    """Tokens/s of one prompt, alone, and each Worker's share of that time that it computed."""
    session = await swarm.session(prompt)
    before, taken, after = await swarm.worked(), await traverse(session), await swarm.worked()
    await session.close()
    return prompt / taken, [(after[n][0] - before[n][0]) / taken for n in after]


def started(few: float, many: float) -> int:
    """What starting a chunk takes, in rows; from tokens/s of `FEW` and of `MANY`, each in one chunk on one Stage."""
    few_s, many_s = FEW / few, MANY / many
    a_row = (many_s - few_s) / (MANY - FEW)
    return max(1, round(few_s / a_row - FEW)) if a_row > 0 else START_ROWS


async def answer(session: Session, until: asyncio.Event, gaps: list[tuple[float, float]]) -> None:
    """Token after token; notes when each came, and how long after the one before."""
    while not until.is_set() and len(session.tokens) < TAIL:
        session.append(1 + len(session.tokens))
        took = await traverse(session)
        gaps.append((time.monotonic(), took))


@dataclass(frozen=True)
class Stall:
    """Seconds between tokens of running Sessions: before a long prompt came, and while it was computed."""

    quiet: list[float]
    beside: list[float]
    prompt_s: float


async def stall(swarm: Swarm, running: int, prompt: int) -> Stall:
    sessions = [await swarm.session(SHORT) for _ in range(running)]
    for session in sessions:
        await traverse(session)
    over = asyncio.Event()
    gaps: list[tuple[float, float]] = []
    answers = [asyncio.create_task(answer(session, over, gaps)) for session in sessions]
    while len(gaps) < QUIET * running:
        await asyncio.sleep(0.01)
    long = await swarm.session(prompt)
    came = time.monotonic()
    took = await traverse(long)
    over.set()
    await asyncio.gather(*answers)
    for session in (*sessions, long):
        await session.close()
    beside = [gap for at, gap in gaps if came < at - gap and at < came + took]
    return Stall([gap for at, gap in gaps[2 * running :] if at < came], beside, took)


async def busy(swarm: Swarm, sessions: int, new: int) -> tuple[dict[str, float], float]:
    """Each Worker's share of the time that it computed while so many Sessions answered, and tokens/s of all."""
    open_now = [await swarm.session(SHORT) for _ in range(sessions)]
    over = asyncio.Event()
    gaps: list[tuple[float, float]] = []
    answers = [asyncio.create_task(answer(session, over, gaps)) for session in open_now]
    while len(gaps) < 3 * sessions:
        await asyncio.sleep(0.01)
    before, at = await swarm.worked(), len(gaps)
    started = time.monotonic()
    while len(gaps) < at + new * sessions:
        await asyncio.sleep(0.01)
    rate, after = (len(gaps) - at) / (time.monotonic() - started), await swarm.worked()
    over.set()
    await asyncio.gather(*answers)
    for session in open_now:
        await session.close()
    return {n: (after[n][0] - before[n][0]) / (after[n][1] - before[n][1]) for n in after}, rate


async def run(given: argparse.Namespace) -> None:
    ensure(given.folder)
    sessions, context = max(given.sessions, given.running + 1), given.prompt + TAIL
    model = described(given.folder, given.dtype)
    plans = [even_plan(model, stages, 1, sessions, context) for stages in (1, 2)]
    async with serving(plans[0]) as one:
        sizes = [[(await prefill(one, rows))[0] for rows in (FEW, MANY)] for _ in range(1 + given.rounds)][1:]
    start_rows = started(*(median(rates) for rates in zip(*sizes, strict=True)))
    print(f"starting a chunk: {start_rows} rows' worth")
    plans = [replace(plan, start_rows=start_rows) for plan in plans]
    async with serving(plans[0]) as one, serving(plans[1]) as two:
        for swarm in (one, two):
            await prefill(swarm, MANY)
            await prefill(swarm, MANY)
        for prompt in (MANY, given.prompt):
            found = [[await prefill(swarm, prompt) for swarm in (one, two)] for _ in range(given.rounds)]
            alone, both = (median(each[i][0] for each in found) for i in range(2))
            shares = [median(each[1][1][i] for each in found) for i in range(2)]
            print(
                f"prefill of {prompt}: one Stage {alone:.0f}, two {both:.0f} tok/s: {both / alone:.2f} times; "
                f"two Stages busy {shares[0]:.0%} and {shares[1]:.0%}: {sum(shares):.2f} at once",
                flush=True,
            )
        for swarm, name in ((one, "one Stage"), (two, "two Stages")):
            told([await stall(swarm, given.running, given.prompt) for _ in range(given.rounds)], name, given)
        for swarm, name in ((one, "one Stage"), (two, "two Stages")):
            worked, rate = await busy(swarm, given.sessions, given.new)
            print(
                f"{given.sessions} Sessions, {name}: busy {', '.join(f'{s:.1%}' for s in worked.values())}, {rate:.1f} tok/s",
                flush=True,
            )
        level = level_cut(two.plan.model.config.num_blocks, list(worked.values()))
        print(f"the second Stage has the head as well: with {level} Blocks on the first both would take the same", flush=True)


def told(found: list[Stall], name: str, given: argparse.Namespace) -> None:
    """Print what a long prompt did to running answers."""
    quiet, beside = [g for f in found for g in f.quiet], [g for f in found for g in f.beside]
    p50, p99, before = percentile(beside, 0.5), percentile(beside, 0.99), percentile(quiet, 0.5)
    print(
        f"{given.running} running Sessions, {name}, a prompt of {given.prompt} (takes {median(f.prompt_s for f in found):.1f} s): "
        f"between tokens p50 {1e3 * p50:.0f}, p99 {1e3 * p99:.0f} ms: {p99 / p50:.1f} times; "
        f"before it p50 {1e3 * before:.0f}, p99 {1e3 * percentile(quiet, 0.99):.0f} ms; p99 over that p50 {p99 / before:.1f}",
        flush=True,
    )


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--running", type=int, default=4)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "swarm-bench-mixtral-1.5b")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
