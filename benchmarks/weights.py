"""What it takes to have a model's weights: from disk, quantized, from the cache; and one layer of real size in int4.

    python -m benchmarks.weights [--hidden 4096 --ffn 14336] [--dtype int4] [--tokens 64] [--folder FOLDER] [--keep]

Writes one Block of Mixtral 8x7B's shape (random, with embedding and head 3.4 GB in bf16) and deletes it again. Each start is a
process of its own; cold ones begin with nothing of their files in memory. The disk's own rate is the better of plain and of
direct reads of the same file in the same run. All in GB (1e9 bytes).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import weights_link
from benchmarks.checkpoint import ensure
from benchmarks.processes import BareClient, described, free_ports, workers
from swarm.client.session import Session
from swarm.config import ModelConfig, Sizes
from swarm.plan import ExpertShard, Plan, Route, Stage, WorkerSpec
from swarm.wire.v1 import stage_pb2 as pb

PARAMETERS = 46.7e9
"""Of Mixtral 8x7B."""
CHUNK_BYTES = 8 << 20
WARM_UP = 8
ROUNDS = 5


def load(folder: Path, *options: str) -> dict[str, Any]:
    """What `weights_load.py` says, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.weights_load", str(folder), *options]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))


def files(folder: Path) -> list[Path]:
    """All weight files under a folder, the largest first."""
    return sorted(folder.rglob("*.safetensors"), key=lambda p: -p.stat().st_size)


def forget(folder: Path) -> None:
    """Have the system drop what it holds of these files in memory."""
    for path in files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_rate(folder: Path) -> float:
    """Bytes/s at which the largest file is read, by whichever way is quicker."""
    path = files(folder)[0]
    return path.stat().st_size / min(_read_through(path, folder, os.O_RDONLY | way) for way in (0, os.O_DIRECT))


def _read_through(path: Path, folder: Path, flags: int) -> float:
    forget(folder)
    handle = os.open(path, flags)
    started = time.perf_counter()
    with mmap.mmap(-1, CHUNK_BYTES) as buffer:  # aligned, as direct reads want it
        while os.readv(handle, [buffer]) == CHUNK_BYTES:
            pass
    os.close(handle)
    return time.perf_counter() - started


def starts(folder: Path, cache: Path, dtype: str) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Each kind of start: its name, the bytes that it reads, and what it took."""
    own = float(sum(p.stat().st_size for p in files(folder)))
    for name in ("bf16, cold", "bf16, in memory"):
        if name.endswith("cold"):
            forget(folder)
        yield name, own, load(folder)
    forget(folder)
    yield f"{dtype}, quantized and cached, cold", own, load(folder, "--dtype", dtype, "--cache", str(cache / "weights"))
    cached = float(sum(p.stat().st_size for p in files(cache)))
    forget(cache)
    yield f"{dtype}, from the cache, cold", cached, load(folder, "--dtype", dtype, "--cache", str(cache / "weights"))
    yield f"{dtype}, from the cache, in memory", cached, load(folder, "--dtype", dtype, "--cache", str(cache / "weights"))


def layer_plan(folder: Path, dtype: str, context: int) -> Plan:
    """One Block on two Workers of a thread each: all but the experts on one, the experts on the other."""
    model = described(folder, dtype)
    specs = tuple(
        WorkerSpec(f"w{i}", "here", "cpu", f"127.0.0.1:{port}", 1 << 40, threads=1) for i, port in enumerate(free_ports(2))
    )
    shards = (ExpertShard("w1", 0, tuple(range(model.config.num_experts))),)
    return Plan(1, model, specs, (Route((Stage("w0", 0, 1),)),), shards=shards, sessions=1, context=context)


async def decode(plan: Plan, cache: Path, tokens: int) -> tuple[float, float]:
    """Tokens/s of one Session (the median token), and seconds until the Workers served."""
    started = time.perf_counter()
    async with workers(plan, cache) as path:
        began = time.perf_counter() - started
        client = BareClient(path)
        session = Session(client)
        await session.reserve(tokens + WARM_UP + 1)
        taken = []
        for number in range(tokens + WARM_UP):
            session.append(1 + 37 * number % 31000)
            at = time.perf_counter()
            await session.traverse(len(session.tokens) - 1, lambda _, upto: pb.Ask(rows=1, k=1))
            taken.append(time.perf_counter() - at)
        await session.close()
        await client.close()
    return 1 / median(taken[WARM_UP:]), began


async def link_rates(plan: Plan, cache: Path, path: Path) -> tuple[float, float]:
    """Bytes/s of a weight file from a Worker, and through a bare socket."""
    async with workers(plan, cache):
        await weights_link.look(plan, "w0")
        await asyncio.to_thread(weights_link.from_a_socket, path)  # brings the file into memory
        ours = await asyncio.to_thread(weights_link.from_a_rig, plan, "w0", path)
        return ours, await asyncio.to_thread(weights_link.from_a_socket, path)


def bytes_a_token(config: ModelConfig, dtype: str) -> float:
    """Of weights, through one Block and the head."""
    sizes = Sizes(config, dtype)
    return sizes.block_core + config.top_k * sizes.expert + sizes.head


def report_starts(folder: Path, cache: Path, dtype: str, parameters: float) -> None:
    """Print a line for each kind of start."""
    disk = disk_rate(folder)
    print(f"disk: {disk / 1e9:.2f} GB/s\n\n{'start':34}{'s':>8}{'GB read':>9}{'GB/s':>7}{'of the disk':>13}{'peak over kept':>16}")
    for name, size, said in starts(folder, cache, dtype):
        rate = size / said["seconds"]
        peak = said["peak"] / said["kept"]
        print(f"{name:34}{said['seconds']:8.2f}{size / 1e9:9.2f}{rate / 1e9:7.2f}{rate / disk:13.0%}{peak:16.2f}")
        if "quantized" in name:
            print(f"{'':34}{PARAMETERS / parameters * said['seconds'] / 60:8.1f} minutes for {PARAMETERS / 1e9:.1f}B parameters")


def report_layer(folder: Path, cache: Path, dtype: str, tokens: int) -> None:
    """Print tokens/s beside the limit."""
    plan = layer_plan(folder, dtype, tokens + WARM_UP + 16)
    size = bytes_a_token(plan.model.config, dtype)
    options = ("--dtype", dtype, "--cache", str(cache / "weights"), "--products", str(ROUNDS), "--threads", "1")
    before = load(folder, *options)
    rate, began = asyncio.run(decode(plan, cache, tokens))
    after = load(folder, *options)
    bandwidth, own = ((before[key] + after[key]) / 2 for key in ("bandwidth", "copied"))
    print(f"\none Block of real size through two Workers of one thread, {dtype}: {rate:.1f} tok/s")
    print(
        f"  {size / 1e6:.0f} MB a token, bare one-row products read {bandwidth / 1e9:.1f} GB/s: limit {bandwidth / size:.1f} tok/s"
    )
    print(f"  (mapped weights; with the same ones copied into memory of the process's own {own / 1e9:.1f} GB/s)")
    print(f"  {rate * size / bandwidth:.0%} of the limit; its Workers served {began:.1f} s after they were started, from the cache")


def report_link(folder: Path, cache: Path, dtype: str) -> None:
    """Print what another Rig gives beside a plain socket."""
    ours, bare = asyncio.run(link_rates(layer_plan(folder, dtype, 64), cache, files(folder)[0]))
    print(
        f"\nfrom another rig, over loopback: {ours / 1e9:.2f} GB/s, a plain socket {bare / 1e9:.2f} GB/s: {ours / bare:.0%} of it"
    )


def main() -> None:
    """Write a layer, measure, delete it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--ffn", type=int, default=14336)
    parser.add_argument("--dtype", default="int4")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "swarm-bench-layer")
    parser.add_argument("--keep", action="store_true", help="leave the files where they are")
    given = parser.parse_args()
    cache = given.folder.with_name(f"{given.folder.name}-cache")
    shutil.rmtree(cache, ignore_errors=True)
    heads = given.hidden // 128
    try:
        ensure(given.folder, hidden=given.hidden, ffn=given.ffn, blocks=1, heads=heads, kv_heads=max(1, heads // 4), vocab=32000)
        parameters = sum(p.stat().st_size for p in files(given.folder)) / 2
        report_starts(given.folder, cache, given.dtype, parameters)
        report_layer(given.folder, cache, given.dtype, given.tokens)
        report_link(given.folder, cache, given.dtype)
    finally:
        for folder in () if given.keep else (given.folder, cache):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
