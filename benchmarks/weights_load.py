"""One start of a Worker's weights, in a process of its own, so that its peak memory is its own.

    python -m benchmarks.weights_load FOLDER [--dtype int4] [--cache DIR] [--products N] [--threads N]

Prints JSON: seconds, bytes kept, the peak above what the process had before, and with --products the bytes/s of bare one-row
products over all experts, one after the other, N times, which no cache of a CPU holds; `copied` is the same with the weights
copied into memory of the process's own.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import cast

import torch

from benchmarks.processes import described, even_plan
from swarm.model.experts import ExpertWeights
from swarm.model.memory import num_bytes
from swarm.model.product import product
from swarm.weights.cache.tree import Weights, put_together, take_apart
from swarm.weights.checkpoint import Checkpoint
from swarm.worker.holdings import parts_of
from swarm.worker.supply import Supply


def peak_bytes() -> int:
    """The most memory that this process ever had, mapped files included."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def size(weights: Weights) -> int:
    """What a part weighs."""
    return num_bytes(weights) if isinstance(weights, torch.Tensor) else weights.num_bytes


def bandwidth(experts: list[ExpertWeights], rounds: int) -> float:
    """Bytes/s of one-row products over all matrices."""
    matrices = [w for e in experts for w in (e.w13, e.w2)]
    rows = [torch.randn(1, w.shape[1], dtype=torch.bfloat16) for w in matrices]
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        for x, w in zip(rows, matrices, strict=True):
            product(x, w)
        taken.append(time.perf_counter() - started)
    return num_bytes(*matrices) / median(taken)


def copied(expert: ExpertWeights) -> ExpertWeights:
    """The same in memory that was just allocated."""
    tensors: dict[str, torch.Tensor] = {}
    tree = take_apart(expert, tensors)
    return cast(ExpertWeights, put_together(tree, {name: t.clone() for name, t in tensors.items()}))


def main() -> None:
    """Load everything; say what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--products", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    plan = even_plan(described(given.folder, given.dtype), stages=1, threads=1, sessions=1, context=64)
    torch.ones(1 << 16).to(torch.bfloat16).float()
    before, started = peak_bytes(), time.perf_counter()
    supply = Supply(plan.model, torch.device("cpu"), lambda: Checkpoint.open(given.folder), cache=given.cache)
    parts = [supply.part(part) for part in parts_of(plan, "w0")]
    said = {"seconds": time.perf_counter() - started, "kept": sum(map(size, parts)), "peak": peak_bytes() - before}
    if given.products:
        with torch.inference_mode():
            experts = [p for p in parts if isinstance(p, ExpertWeights)]
            said["bandwidth"] = bandwidth(experts, given.products)
            said["copied"] = bandwidth([copied(e) for e in experts], given.products)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
