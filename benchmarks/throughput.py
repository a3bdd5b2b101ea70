"""Decode and prefill tokens/s of the 1.5B Mixtral shape through real Workers, beside plain loops of the same run.

    python -m benchmarks.throughput [--new 24] [--prompt 256] [--folder FOLDER]

One Worker with 2 threads beside a plain loop with 2, two Workers with 1 thread each beside a plain loop with 1. The limit
is weight bytes a token over the bandwidth of bare one-row products (decode), and flops over the rate of a bare product of
256 rows (prefill), both measured in the same run. Rounds alternate, so that a machine that drifts drifts for all.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from json import loads
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkpoint import ensure
from benchmarks.plain_loop import WARM_UP
from benchmarks.processes import BareClient, described, even_plan, unseen, workers
from swarm.client.session import Session
from swarm.wire.v1 import stage_pb2 as pb

LLAMA = {"prefill": 54.0, "decode": 10.4}
"""llama.cpp over two RPC workers of one thread, bf16, the same shape, on such a machine (tokens/s)."""


@dataclass(frozen=True)
class Rates:
    """Tokens/s."""

    decode: float
    prefill: float


async def measure(folder: Path, stages: int, threads: int, prompt: int, new: int) -> Rates:
    """One Session through fresh Workers: a prompt, then one token after another."""
    plan = even_plan(described(folder), stages, threads, sessions=1, context=prompt + new + 64)
    async with workers(plan) as path:
        client = BareClient(path)
        prefills, decodes = [], []
        for _ in range(WARM_UP + 3):
            session = Session(client)
            await session.reserve(prompt + new + 1)
            session.replace(unseen(prompt))
            prefills.append(prompt / await _traverse(session))
            started = time.monotonic()
            for number in range(new):
                session.append(1 + number)
                await _traverse(session)
            decodes.append(new / (time.monotonic() - started))
            await session.close()
        await client.close()
    return Rates(median(decodes[WARM_UP:]), median(prefills[WARM_UP:]))


async def _traverse(session: Session) -> float:
    started, end = time.monotonic(), len(session.tokens)
    await session.traverse(end - 1, lambda _, upto: pb.Ask(rows=1, k=2) if upto == end else pb.Ask())
    return time.monotonic() - started


def plain(threads: int, new: int) -> dict[str, Any]:
    """What `plain_loop.py` says, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.plain_loop", "--threads", str(threads), "--tokens", str(new), "--json"]
    return dict(loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Print tokens/s and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "swarm-bench-mixtral-1.5b")
    given = parser.parse_args()
    ensure(given.folder)
    for stages, threads in ((1, 2), (2, 1)):
        loops, ours = [], []
        for _ in range(given.rounds):
            loops.append(plain(threads, given.new))
            ours.append(asyncio.run(measure(given.folder, stages, threads, given.prompt, given.new)))
        report(stages, threads, loops, ours)


def report(stages: int, threads: int, loops: list[dict[str, Any]], ours: list[Rates]) -> None:
    """One configuration's figures."""
    decode, prefill = median(r.decode for r in ours), median(r.prefill for r in ours)
    rows = (
        ("decode", decode, median(loop["plain"]["decode"] for loop in loops), median(loop["bandwidth_limit"] for loop in loops)),
        ("prefill", prefill, median(loop["plain"]["prefill"] for loop in loops), median(loop["dense_limit"] for loop in loops)),
    )
    print(f"\n{stages} Worker(s) of {threads} thread(s), bf16, medians of {len(ours)} rounds")
    for name, rate, loop, limit in rows:
        shares = f"{rate / loop:.2f} of a plain loop's {loop:.1f}, {rate / limit:.0%} of the limit {limit:.1f}"
        print(f"  {name:8}{rate:8.1f} tok/s   {shares}")
    if stages == 2:
        over = decode / LLAMA["decode"], prefill / LLAMA["prefill"]
        print(f"  over llama.cpp's RPC on such a machine: decode {over[0]:.2f}, prefill {over[1]:.1f}")


if __name__ == "__main__":
    main()
