"""Pieces of a tensor worked on by several threads at once, each with one torch thread.

torch's own threads wait for each other after every operation. A piece takes some twenty short ones, and whatever else wants a core,
the Stage that serves meanwhile or another Worker, makes all of them wait.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def spread_out(work: Callable[[slice], T], total: int, step: int) -> list[T]:
    """What `work` makes of each `step` of `total`, in order; by as many threads as torch has in this one."""
    threads = torch.get_num_threads()
    pieces = [slice(at, at + step) for at in range(0, total, step)]
    try:
        with ThreadPoolExecutor(max(1, min(threads, len(pieces))), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, pieces))
    finally:
        torch.set_num_threads(threads)  # what threads that start later begin with was changed, too
