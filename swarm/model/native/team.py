"""The threads that torch computes on, for what is compiled here: others would wait for those, which spin."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

import torch


@lru_cache
def parallel() -> int | None:
    """Address of GOMP_parallel in this process; None where torch computes on other threads than GNU's; see `shared`."""
    maps = Path("/proc/self/maps")
    path = gnu_library(maps.read_text()) if maps.exists() else None
    return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value if path else None


def gnu_library(maps: str) -> Path | None:
    """GNU's OpenMP among the files that are mapped, as proc(5) lists them: a path is the rest of its line, and may have spaces."""
    mapped = (Path(line.split(maxsplit=5)[-1]) for line in maps.splitlines())
    return next((path for path in mapped if path.name.startswith("libgomp") and path.exists()), None)


def shared() -> bool:
    """Whether as many threads as torch has compute what is compiled here; else torch's own product on all of them is quicker."""
    return torch.get_num_threads() == 1 or parallel() is not None
