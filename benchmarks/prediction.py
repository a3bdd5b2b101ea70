"""Prediction against measurement on unequal swarms of this machine, the 1.5B Mixtral shape in bf16.

    python -m benchmarks.prediction [--only NAME] [--new 32] [--folder FOLDER]

Each swarm: real Worker processes, measured as a swarm measures them when a rig joins (Measure, MeasureLink), priced by the
planner's `predict`, and then timed: one Session alone, then all Sessions at once. Below each, what a token was predicted to
take and what it took, part by part, so that a missing term can be found. Needs root for CPU quotas and for the shaped link.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.checkpoint import ensure
from benchmarks.limits import HOSTS, may_limit, may_shape, two_hosts
from benchmarks.others import Others
from benchmarks.prediction_account import account, round_taken
from benchmarks.prediction_measure import hardware, rates
from benchmarks.processes import described
from benchmarks.unequal import CONTEXT, DELAY_S, Shape, running
from cluster.planner.budget import Load
from cluster.planner.predict import predict

HALF = (1, 3, 5, 7)
CPUS = os.cpu_count() or 1
SHAPES = (
    Shape("2 and 1 threads", (2, 1), ((10, 16),), sessions=4 if CPUS > 2 else 1),  # else both could not compute at once
    Shape("1 and 1 thread, the second with half a CPU", (1, 1), ((10, 16),), shares=(1, 0.5)),
    # not all of the machine: the client takes some of it too
    Shape("three Workers with 100%, 50% and 30% of a CPU", (1, 1, 1), ((9, 13, 16),), shares=(1, 0.5, 0.3)),
    Shape(f"a way of {1e3 * DELAY_S:.0f} ms between two Workers", (1, 1), ((8, 16),), delay_s=DELAY_S),
    Shape("a link of 50 Mbit/s between two hosts", (1, 1), ((8, 16),), hosts=True),
    Shape("half the experts of six Blocks on another Worker", (1, 1), ((16,),), shards=tuple(("w1", b, HALF) for b in range(6))),
    Shape("two Routes, one of them with 60% of a CPU", (1, 1), ((16,), (16,)), shares=(1, 0.6)),
)


def cannot(shape: Shape) -> str:
    """Why this machine cannot have such a swarm; empty where it can."""
    return (may_limit() if shape.shares else "") or (may_shape() if shape.hosts else "")


async def compare(shape: Shape, folder: Path, new: int) -> None:
    """Measure, predict, time, and print one swarm."""
    model = described(folder)
    async with running(shape, model) as swarm:
        quiet = Others()
        found = await hardware(swarm)
        load = Load(sessions=shape.sessions, context=CONTEXT)
        predicted = predict(swarm.plan, found, load)
        while_measured, quiet = quiet.share(), Others()
        timed = await rates(swarm, new)
        while_timed = quiet.share()
    for what, said, was in (
        ("one stream", 1 / round_taken(swarm.plan, found, load, timed).around_s, timed.alone),  # over the Route that it took
        (f"{shape.sessions} session(s)", predicted.total_tokens_per_s, timed.together),
    ):
        print(f"  {what:13} predicted {said:6.2f} tok/s   measured {was:6.2f}   ratio {said / was:.2f}")
    print(f"      others used {while_measured:.0%} of the CPUs while it was measured, {while_timed:.0%} while it was timed")
    for line in account(swarm.plan, found, load, timed):
        print(f"      {line}")


def inside_two_hosts(words: list[str]) -> None:
    """Compare in a process on the first of two hosts."""
    with two_hosts():
        command = ["ip", "netns", "exec", next(iter(HOSTS)), sys.executable, "-m", "benchmarks.prediction", *words, "--inside"]
        subprocess.run(command, check=True)


def main() -> None:
    """Print tokens/s, predicted and measured, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="swarms whose name has this in it")
    parser.add_argument("--new", type=int, default=32, help="tokens that are timed")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "swarm-bench-mixtral-1.5b")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    ensure(given.folder)
    for shape in SHAPES:
        if given.only not in shape.name:
            continue
        if why := cannot(shape):
            print(f"{shape.name}: left out, {why}", flush=True)
        elif shape.hosts and not given.inside:
            inside_two_hosts(["--only", shape.name, "--new", str(given.new), "--folder", str(given.folder)])
        else:
            print(shape.name, flush=True)
            asyncio.run(compare(shape, given.folder, given.new))


if __name__ == "__main__":
    main()
