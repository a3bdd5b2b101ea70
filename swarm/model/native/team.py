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
    loaded = (Path(line.split()[-1]) for line in maps.read_text().splitlines()) if maps.exists() else ()
    path = next((path for path in loaded if path.name.startswith("libgomp")), None)
    return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value if path else None


def shared() -> bool:
    """Whether as many threads as torch has compute what is compiled here; else torch's own product on all of them is quicker."""
    return torch.get_num_threads() == 1 or parallel() is not None
