"""What a product with a matrix takes in each form, at growing rows, beside bf16.

    python -m benchmarks.products [--shape 28672x4096] [--rows 1,8,64] [--dtype bf16 --dtype int4] [--threads 1] [--device cpu]

Milliseconds, the least of some. With one thread on a CPU it is processor time, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from swarm.model.dtypes import numbers_of
from swarm.model.product import product
from swarm.worker.measure_parts import Blank, timed

DTYPES = ("bf16", "int8", "int8/32", "int8/16", "int4/32", "int4", "int4/128")
LEAST_S = 0.2
TIMES = 3


def best(work: Callable[[], object], device: torch.device, threads: int) -> float:
    """Seconds."""
    alone = device.type == "cpu" and threads == 1
    work()
    found: list[float] = []
    until = time.perf_counter() + LEAST_S
    while len(found) < TIMES or time.perf_counter() < until:
        began = time.process_time()
        seconds = timed(device, work)
        found.append(time.process_time() - began if alone else seconds)
    return min(found)


def main() -> None:
    """Print a line a dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="28672x4096", help="outputs x inputs")
    parser.add_argument("--rows", default="1,4,8,16,32,64,256")
    parser.add_argument("--dtype", action="append", help=f"again for more; by default {', '.join(DTYPES)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    outputs, inputs = (int(n) for n in given.shape.split("x"))
    device, rows = torch.device(given.device), [int(n) for n in given.rows.split(",")]
    print(f"{'rows':10}" + "".join(f"{n:>9}" for n in rows))
    with torch.inference_mode():
        for dtype in given.dtype or DTYPES:
            matrix, pieces = Blank(dtype, device).matrix(outputs, inputs)
            for fill in pieces:
                fill()
            line = []
            for n in rows:
                x = torch.randn(n, inputs, dtype=numbers_of(dtype), device=device)
                line.append(best(partial(product, x, matrix), device, given.threads))
            print(f"{dtype:10}" + "".join(f"{1e3 * seconds:9.2f}" for seconds in line), flush=True)


if __name__ == "__main__":
    main()
