"""A Stage of Mixtral 8x7B's shape on a card, beside what the card itself can do: decode and prefill tokens/s, and their limits.

    python -m benchmarks.cuda [--device cuda:0] [--blocks 6] [--dtypes bf16,int4] [--rows 1,8,32] [--prompts 256,2048] [--profile]

Random weights, made on the card. Limits are measured in the same run: for decode the bytes of weights that a Step of so many rows
must read over the bandwidth of a copy (bytes read and written); for prefill flops over the rate of a bare dense product. Decode is
measured twice: kernels started one by one, and recorded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from swarm.bits import Bits
from swarm.config import ModelConfig, Sizes
from swarm.model.block import Block, BlockCore
from swarm.model.cache import PagedCache
from swarm.model.dtypes import numbers_of
from swarm.model.experts import ExpertWeights, LocalExperts
from swarm.model.kernels.choice import kernels_for, recorder_for
from swarm.model.product import Weight
from swarm.model.rows import Rows, Segment
from swarm.model.stage import Stage
from swarm.shapes import SHAPES
from swarm.worker.device_time import finish
from swarm.worker.measure_parts import Blank

COPY_BYTES = 2**31
PRODUCT = 8192
REPEATS = 20
HISTORY = 512
"""Positions that each decoding Session has."""


@dataclass(frozen=True)
class Setup:
    """What is measured."""

    config: ModelConfig
    dtype: str
    device: torch.device


def seconds(device: torch.device, work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median of some repeats, each until the device is done, after two that are not counted."""
    taken = []
    for _ in range(repeats + 2):
        finish(device)
        started = time.perf_counter()
        work()
        finish(device)
        taken.append(time.perf_counter() - started)
    return median(taken[2:])


def stage_of(setup: Setup) -> Stage:
    """Blocks of random weights."""
    config, device, numbers = setup.config, setup.device, numbers_of(setup.dtype)
    blank = Blank(setup.dtype, device)

    def matrix(rows: int, columns: int) -> Weight:
        weight, pieces = blank.matrix(rows, columns)
        for fill in pieces:
            fill()
        return weight

    norm = torch.ones(config.hidden, dtype=numbers, device=device)
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    blocks, kernels = {}, kernels_for(device, numbers)
    for index in range(config.num_blocks):
        router = torch.randn(config.num_experts, config.hidden, dtype=numbers, device=device) * 0.02
        attention = matrix(heads, config.hidden), matrix(config.hidden, config.num_heads * config.head_dim)
        core = BlockCore(norm, *attention, norm, router)
        experts = {
            (index, e): ExpertWeights(matrix(2 * config.ffn, config.hidden), matrix(config.hidden, config.ffn))
            for e in range(config.num_experts)
        }
        ports = dict.fromkeys(range(config.num_experts), LocalExperts.of(experts, kernels))
        blocks[index] = Block.of(config, index, core, ports)
    return Stage(config, blocks)


def cache_of(setup: Setup, sessions: int, positions: int) -> PagedCache:
    """Room for that many Sessions, and each of them in it."""
    pages = sessions * -(-positions // 32)
    cache = PagedCache(setup.config, pages, 32, numbers_of(setup.dtype), setup.device)
    for block in range(setup.config.num_blocks):
        cache.add_block(block)
    for number in range(sessions):
        assert cache.reserve(bytes([number]), positions)
    return cache


def hidden_of(setup: Setup, rows: int) -> Tensor:
    return torch.randn(rows, setup.config.hidden, dtype=numbers_of(setup.dtype), device=setup.device)


def decode(setup: Setup, stage: Stage, rows: int, recorded: bool) -> float:
    """Seconds of a Step of that many Sessions."""
    cache = cache_of(setup, rows, HISTORY + 1)
    recorder = recorder_for(setup.device, numbers_of(setup.dtype)) if recorded else None
    stage = stage.replayed(cache, recorder) if recorder else stage
    for number in range(rows):
        stage.forward(hidden_of(setup, HISTORY), Rows.of([Segment(bytes([number]), 0, HISTORY, 0)], setup.device), cache)
    segments = [Segment(bytes([i]), i, i + 1, HISTORY) for i in range(rows)]
    h = hidden_of(setup, rows)
    return seconds(setup.device, lambda: stage.forward(h, Rows.of(segments, setup.device), cache))


def prefill(setup: Setup, stage: Stage, prompt: int) -> float:
    """Seconds of a prompt in chunks of 256."""
    cache, h = cache_of(setup, 1, prompt), hidden_of(setup, min(256, prompt))

    def all_chunks() -> None:
        for at in range(0, prompt, len(h)):
            stage.forward(h, Rows.of([Segment(b"\0", 0, len(h), at)], setup.device), cache)

    return seconds(setup.device, all_chunks, 5)


def touched(config: ModelConfig, rows: int) -> float:
    """Experts of a Block that so many rows choose, where all are as likely."""
    return config.num_experts * (1 - (1 - config.top_k / config.num_experts) ** rows)


def read_bytes(setup: Setup, rows: int) -> float:
    """Weights that a Step of so many rows reads."""
    sizes = Sizes(setup.config, setup.dtype)
    return setup.config.num_blocks * (sizes.block_core + touched(setup.config, rows) * sizes.expert)


def flops(config: ModelConfig, rows: int) -> float:
    """Of the products of so many rows; attention's own are left out."""
    heads = 2 * config.num_heads + 2 * config.num_kv_heads
    row = heads * config.head_dim * config.hidden + config.top_k * 3 * config.hidden * config.ffn
    return 2.0 * rows * row * config.num_blocks


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes/s of a copy, read and written."""
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    to = torch.empty_like(source)
    return 2 * size / seconds(device, lambda: to.copy_(source))


def dense_rate(device: torch.device, numbers: torch.dtype, side: int) -> float:
    """Flops/s of a square product."""
    a, b = torch.randn(2, side, side, dtype=numbers, device=device)
    return 2.0 * side**3 / seconds(device, lambda: a @ b, 5)


def profile(setup: Setup, stage: Stage) -> None:
    """What one decode Step of one row is made of, kernels started one by one."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if setup.device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as seen:
        decode(setup, stage, 1, False)
    print(seen.key_averages().table(sort_by=f"self_{setup.device.type}_time_total", row_limit=20, max_name_column_width=60))


def report(setup: Setup, rows: list[int], prompts: list[int], copy_rate: float, product_rate: float) -> Stage:
    """Print one dtype's figures."""
    stage, weights = stage_of(setup), setup.config.num_blocks * Sizes(setup.config, setup.dtype).block
    print(f"\n{setup.dtype}, {setup.config.num_blocks} Blocks, {weights / 2**30:.1f} GiB")
    for count in rows:
        limit = count * copy_rate / read_bytes(setup, count)
        for recorded in (False, True):
            if recorded and recorder_for(setup.device, numbers_of(setup.dtype)) is None:
                continue
            rate = count / decode(setup, stage, count, recorded)
            how = "recorded" if recorded else "one by one"
            print(f"  decode, {count:3} rows, {how:10} {rate:9.1f} tok/s, {rate / limit:4.0%} of {limit:.1f}")
    for prompt in prompts:
        rate, limit = prompt / prefill(setup, stage, prompt), product_rate * prompt / flops(setup.config, prompt)
        print(f"  prefill, {prompt:5} tokens      {rate:9.1f} tok/s, {rate / limit:4.0%} of {limit:.1f}")
    return stage


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--shrink", type=int, default=1, help="sizes over this: to try it without a card")
    parser.add_argument("--dtypes", default="bf16,int4")
    parser.add_argument("--rows", default="1,8,32")
    parser.add_argument("--prompts", default="256,2048")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    device, whole = torch.device(given.device), SHAPES["mixtral-8x7b"]
    config = replace(
        whole, num_blocks=given.blocks, hidden=whole.hidden // given.shrink, ffn=whole.ffn // given.shrink,
        num_heads=whole.num_heads // given.shrink, num_kv_heads=max(1, whole.num_kv_heads // given.shrink),
    )  # fmt: skip
    rows, prompts = ([int(n) for n in text.split(",")] for text in (given.rows, given.prompts))
    with torch.inference_mode():
        copy_rate = bandwidth(device, COPY_BYTES // given.shrink)
        product_rate = dense_rate(device, numbers_of(str(Bits.of(given.dtypes.split(",")[0]))), PRODUCT // given.shrink)
        print(f"{device}: copy {copy_rate / 1e9:.0f} GB/s, dense product {product_rate / 1e12:.2f} TFLOP/s")
        for dtype in given.dtypes.split(","):
            setup = Setup(config, dtype, device)
            stage = report(setup, rows, prompts, copy_rate, product_rate)
            if given.profile:
                profile(setup, stage)
            del stage  # the next one may need its room


if __name__ == "__main__":
    main()
