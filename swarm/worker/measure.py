"""How fast a Device computes, in at most a few seconds: `python -m swarm.worker.measure` prints it without a swarm.

Measuring is a generator: each turn takes the thread that it runs on for about `JOB_S`, so that a Worker can do what is more
urgent in between. What is measured is so in pieces, well below a millisecond where it can be, in rounds that come back to each
row count: a figure is the median of the pieces of its best round. Others who compute here meanwhile slow down most pieces of some
rounds: two threads that wait for each other lose milliseconds at each wait while a third has a core of theirs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

import torch

from swarm.model.dtypes import TORCH_DTYPES, numbers_of
from swarm.model.product import Weight
from swarm.worker.device_memory import free_bytes
from swarm.worker.measure_parts import JOB_S, Products, SmallBlock
from swarm.worker.measure_software import frames
from swarm.worker.quota import pauses

ROWS = (1, 2, 4, 8, 16, 64, 256)
BUDGET_S = 3.0
ROUNDS = 6
SEVERAL = 4
"""Rows of several Sessions, as they are answered together."""
GUESS_S = 1e-9
"""Seconds a byte at one row, before anything is known: a slow CPU's."""
BF16_CAPABILITY = 8
"""CUDA compute capability from which bf16 has units of its own."""


@dataclass(frozen=True)
class Wanted:
    """What to measure.

    Args:
        dtype: as a Plan names it; matrices have the form of its experts.
        hidden, ffn: the shape of one expert.
        kernels_core, kernels_expert: kernel starts that the planner counts for a Block of one row, see `worker.proto`.
        budget_s: for all of it.
    """

    dtype: str = "bf16"
    hidden: int = 4096
    ffn: int = 14336
    kernels_core: int = 30
    kernels_expert: int = 8
    budget_s: float = BUDGET_S

    def kernels(self, experts: int) -> int:
        """Of a Block whose rows go to so many experts together."""
        return self.kernels_core + experts * self.kernels_expert


@dataclass(frozen=True)
class Figures:
    """What was found.

    Args:
        products: (rows, seconds a byte of weight), growing; as many row counts as there was time for.
        start_s: seconds to start one kernel for one row, Python included.
        software_s: seconds for one frame of one Step to be made, written and read.
        several_start_s: seconds to start one kernel for several rows, which go other ways than a row that is alone.
    """

    products: tuple[tuple[int, float], ...]
    start_s: float
    software_s: float
    took_s: float
    several_start_s: float


def dtypes_of(device: torch.device) -> tuple[str, ...]:
    """The dtypes of numbers that a Device computes well; matrices in few bits meet numbers of one of them."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] < BF16_CAPABILITY:
        return ("fp16", "fp32")
    return tuple(TORCH_DTYPES)


def measuring(wanted: Wanted, device: torch.device, room_bytes: int, held: Sequence[Weight] = ()) -> Generator[None, None, Figures]:
    """Measure a Device, a turn at a time; what the last one returns are the Figures.

    Args:
        room_bytes: what may be used; half of it is.
        held: weights that the Device has already, of the wanted shape and dtype.
    """
    began = time.perf_counter()
    dtype = numbers_of(wanted.dtype)
    one, several = SmallBlock(dtype, device, 1), SmallBlock(dtype, device, SEVERAL)
    fill_until = began + wanted.budget_s / 4
    products = yield from Products.filling(wanted.hidden, wanted.ffn, held, wanted.dtype, device, room_bytes, fill_until)
    for block in (one, several):
        block.run(products.one, JOB_S)
        yield
    known = yield from _warm_up(products, began + wanted.budget_s / 2)
    until = began + wanted.budget_s - JOB_S
    repeat_s = max(JOB_S, (until - time.perf_counter()) / ROUNDS / (len(known) + 3))
    found: dict[int, list[list[float]]] = {rows: [] for rows in known}
    starts: dict[SmallBlock, list[list[float]]] = {one: [], several: []}
    software: list[list[float]] = []
    paused = pauses()
    while len(software) < ROUNDS and (not software or time.perf_counter() < until):
        for block, seconds in starts.items():
            seconds.append(block.run(products.one, repeat_s))
            yield
        software.append(frames(products.one, JOB_S))
        yield
        for rows in known:
            if not found[rows] or time.perf_counter() < until:
                found[rows].append((yield from _repeat(products, rows, known[rows], repeat_s)))
    typical = _with_pauses if pauses() > paused else _without_others
    figures = tuple((rows, typical(rounds)) for rows, rounds in found.items())
    one_s, several_s = (typical(seconds) / wanted.kernels(block.chosen) for block, seconds in starts.items())
    return Figures(figures, one_s, typical(software), time.perf_counter() - began, several_s)


def _without_others(rounds: Sequence[Sequence[float]]) -> float:
    """What most pieces of the best round took."""
    return min(median(pieces) for pieces in rounds)


def _with_pauses(rounds: Sequence[Sequence[float]]) -> float:
    """With the pauses of a CPU quota, which most pieces know nothing of: they are part of what the Device gives."""
    return median(fmean(pieces) for pieces in rounds)


def _warm_up(products: Products, until: float) -> Generator[None, None, dict[int, float]]:
    """A first estimate, seconds a byte, of each row count that there is time for."""
    known: dict[int, float] = {}
    last_rows, last = 1, GUESS_S
    for rows in ROWS:
        if known and time.perf_counter() > until:
            break
        for _ in range(2):  # the first includes what is set up once
            last_rows, last = rows, min(products.run(rows, last * rows / last_rows))
            yield
        known[rows] = last
    return known


def _repeat(products: Products, rows: int, guess: float, seconds: float) -> Generator[None, None, list[float]]:
    """Seconds a byte, of pieces over about that many seconds."""
    began = time.perf_counter()
    pieces: list[float] = []
    while not pieces or time.perf_counter() - began < seconds - JOB_S / 2:
        pieces += products.run(rows, guess)
        yield
    return pieces


def at_once(wanted: Wanted, device: torch.device, room_bytes: int) -> Figures:
    """Measure without giving anybody a turn."""
    turns = measuring(wanted, device, room_bytes)
    with torch.inference_mode():
        while True:
            try:
                next(turns)
            except StopIteration as done:
                figures: Figures = done.value
                return figures


def main(words: Sequence[str] | None = None) -> int:
    """Print one line of JSON: products, start_s, software_s, took_s, several_start_s, dtypes, free_bytes."""
    parser = argparse.ArgumentParser(prog="swarm.worker.measure", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    for name, kind in Wanted.__annotations__.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type={"str": str, "int": int, "float": float}[kind], default=getattr(Wanted, name)
        )
    given = vars(parser.parse_args(words))
    device, threads = torch.device(given.pop("device")), given.pop("threads")
    if threads:
        torch.set_num_threads(threads)
    figures = at_once(Wanted(**given), device, free_bytes(device))
    print(json.dumps(asdict(figures) | {"dtypes": dtypes_of(device), "free_bytes": free_bytes(device)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
