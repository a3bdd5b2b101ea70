"""The rates that the project aims at, in one run, each beside its limit and beside what llama.cpp's RPC reached on such a machine.

    python -m benchmarks.aims [--dtype bf16 --dtype int4] [--rounds 3] [--prompt 2048] [--sessions 8] [--folder FOLDER]
        [--rpc bf16=10.4,54,14.2]

The 1.5B Mixtral shape: one Worker of two threads, and two Workers of one thread. The limits are taken in the same run, before each:
weight bytes a token over the bandwidth of bare one-row products of that dtype, and a prompt's flops over the rate of a bare bf16
product of 256 rows. Prompts are such as no Stage has seen. Two Stages have half of the Blocks each; how busy they are is measured a
second time where the first has what the second needs for the head, too. They cut prompts by what it takes to start a chunk, as one
Stage took it in this run. In int4 the first start quantizes (a minute or two).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.checkpoint import ensure
from benchmarks.pipeline import FEW, TAIL, Swarm, busy, prefill, serving, started, traverse
from benchmarks.plain_loop import PROMPT, best
from benchmarks.processes import described, even_plan, level_cut
from cluster.planner import reads
from swarm.config import Sizes
from swarm.model.dtypes import numbers_of
from swarm.model.memory import num_bytes
from swarm.model.product import Weight, product
from swarm.plan import START_ROWS, Model
from swarm.worker.measure_parts import Blank

RPC = {
    "bf16": {"decode": 10.4, "prefill": 54.0, "sessions": 14.2},
    "int4": {"decode": 18.9, "prefill": 147.0, "sessions": 27.4},
}
"""llama.cpp over two RPC workers of one thread, bf16 and Q4_K_M, tokens/s: one stream, a prompt of 256, 8 sessions in all.
Measured on 2 cores of an Intel server CPU with AMX; `--rpc` says what it reaches on another machine."""
OUTPUTS, INPUTS = 4096, 14336
POOL_BYTES = 1 << 29
"""Of the weights that one-row products go round: more than a core's caches."""
NEW = 24
WARM_UP = 4


@dataclass(frozen=True)
class Limits:
    """Of so many threads: bytes/s of bare one-row products, flop/s of a bare bf16 product of 256 rows."""

    bandwidth: float
    dense: float

    @classmethod
    def measure(cls, dtype: str, threads: int) -> Limits:
        torch.set_num_threads(threads)
        device, pool = torch.device("cpu"), list[Weight]()
        while num_bytes(*pool) < POOL_BYTES:
            matrix, pieces = Blank(dtype, device).matrix(OUTPUTS, INPUTS)
            for fill in pieces:
                fill()
            pool.append(matrix)
        one = torch.randn(1, INPUTS, dtype=numbers_of(dtype))
        many, dense = torch.randn(PROMPT, INPUTS).bfloat16(), torch.randn(OUTPUTS, INPUTS).bfloat16()
        with torch.inference_mode():
            passing = best(lambda: [product(one, m) for m in pool], 2.0)
            multiplying = best(lambda: torch.mm(dense, many.t()), 1.0)
        return cls(num_bytes(*pool) / passing, 2 * PROMPT * dense.numel() / multiplying)


def limits(dtype: str, threads: int) -> Limits:
    """`Limits.measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.aims", "--limits", dtype, str(threads)]
    return Limits(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


async def decode(swarm: Swarm) -> float:
    """Tokens/s of one stream, the median of single tokens."""
    session = await swarm.session(64)
    await traverse(session)
    taken = []
    for number in range(NEW):
        session.append(1 + number)
        taken.append(await traverse(session))
    await session.close()
    return 1 / median(taken)


async def one_of(
    given: argparse.Namespace, dtype: str, stages: int, threads: int, start_rows: int = START_ROWS
) -> tuple[float, int]:
    """Measure and print one swarm; its tokens/s of the long prompt, and rows that starting a chunk is worth on one Stage."""
    model, limit = described(given.folder, dtype), limits(dtype, threads)
    plan = even_plan(model, stages, threads, given.sessions + 1, given.prompt + TAIL)
    async with serving(replace(plan, start_rows=start_rows), given.cache) as swarm:
        for _ in range(WARM_UP):
            await prefill(swarm, PROMPT)
        ones = [await decode(swarm) for _ in range(given.rounds)]
        shorts = [(await prefill(swarm, PROMPT))[0] for _ in range(given.rounds)]
        fews = [(await prefill(swarm, FEW))[0] for _ in range(given.rounds)]
        longs = [await prefill(swarm, given.prompt) for _ in range(max(1, given.rounds - 1))]
        worked, rate = await busy(swarm, given.sessions, NEW)
        token_bytes = sum(r.weights_bytes for r in reads(swarm.plan))
    flops = 2 * active(model)
    rpc = (RPC | dict(given.rpc)).get(dtype, {}) if stages == 2 else {}
    bare = f"{limit.bandwidth / 1e9:.1f} GB/s, {limit.dense / 1e12:.2f} TFLOP/s bare"
    print(f"\n{dtype}, {stages} Worker(s) of {threads} thread(s): {bare}")
    show("one stream", median(ones), limit.bandwidth / token_bytes, rpc.get("decode"))
    show(f"prompt of {PROMPT}", median(shorts), stages * limit.dense / flops, rpc.get("prefill"))
    show(f"prompt of {given.prompt}", median(r for r, _ in longs), stages * limit.dense / flops, None)
    show(f"{given.sessions} sessions, in all", rate, None, rpc.get("sessions"))
    print(f"  Stages busy with {given.sessions} sessions: {', '.join(f'{share:.0%}' for share in worked.values())}", flush=True)
    if stages == 2:
        first = level_cut(model.config.num_blocks, list(worked.values()))
        plan = even_plan(model, stages, threads, given.sessions + 1, given.prompt + TAIL, first=first)
        async with serving(replace(plan, start_rows=start_rows), given.cache) as swarm:
            worked, rate = await busy(swarm, given.sessions, NEW)
        shares = ", ".join(f"{share:.0%}" for share in worked.values())
        print(f"  the same, cut {first} + {model.config.num_blocks - first}: {shares}, {rate:.1f} tok/s in all", flush=True)
    return median(r for r, _ in longs), started(median(fews), median(shorts))


def active(model: Model) -> int:
    """Weights that one token of a prompt meets, without the head: only a prompt's last row meets that."""
    c, sizes = model.config, Sizes(model.config, "bf16")
    return c.num_blocks * (sizes.block_core + c.top_k * sizes.expert) // 2


def show(what: str, rate: float, limit: float | None, rpc: float | None) -> None:
    """Print a line."""
    parts = [f"{rate / limit:.0%} of the limit {limit:.1f}"] if limit else []
    parts += [f"{rate / rpc:.2f} times llama.cpp's RPC ({rpc})"] if rpc else []
    print(f"  {what:24}{rate:8.1f} tok/s   {', '.join(parts)}", flush=True)


def reached(text: str) -> tuple[str, dict[str, float]]:
    """A dtype and what llama.cpp reaches in it. Raises ValueError where that is not three numbers."""
    dtype, _, numbers = text.partition("=")
    return dtype, dict(zip(("decode", "prefill", "sessions"), map(float, numbers.split(",")), strict=True))


async def run(given: argparse.Namespace) -> None:
    ensure(given.folder)
    for dtype in given.dtype or ["bf16", "int4"]:
        alone, _ = await one_of(given, dtype, 1, 2)
        one, start_rows = await one_of(given, dtype, 1, 1)
        two, _ = await one_of(given, dtype, 2, 1, start_rows)
        ratios = f"two Stages of a thread over one: {two / one:.2f} times; over one of two threads: {two / alone:.2f}"
        ratios += f" (starting a chunk: {start_rows} rows' worth)"
        print(f"  prompt of {given.prompt}: {ratios}", flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "swarm-bench-mixtral-1.5b")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "swarm-bench-cache")
    parser.add_argument("--rpc", action="append", default=[], type=reached, metavar="DTYPE=STREAM,PROMPT,SESSIONS",
                        help="what llama.cpp's RPC reaches here, tokens/s")  # fmt: skip
    parser.add_argument("--limits", nargs=2, metavar=("DTYPE", "THREADS"), help="only these, as JSON")
    given = parser.parse_args(words)
    if given.limits:
        print(json.dumps(asdict(Limits.measure(given.limits[0], int(given.limits[1])))))
    else:
        asyncio.run(run(given))


if __name__ == "__main__":
    main()
