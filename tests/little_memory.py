"""What something takes of Python's memory at most."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

TRIES = 4


def costs_little(do: Callable[[], object], most_bytes: int) -> None:
    """Assert that it takes less than so much; where it took more it is done again, threads of earlier tests may take some."""
    peaks: list[int] = []
    while not peaks or (peaks[-1] >= most_bytes and len(peaks) < TRIES):
        tracemalloc.start()
        try:
            do()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[-1] < most_bytes, f"{peaks} bytes"
