"""`--cache-limit`: the most that quantized weights may take of this rig's disk, kept in their folder."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.device_spec import parse_size
from swarm.cli import output, settings
from swarm.errors import UsageError
from swarm.weights.cache.limit import write_limit

NONE = "none"


def limited_cache(folder: Path | None, limit: str | None) -> Path:
    """The folder of quantized weights (see `settings.cache_dir`), with what --cache-limit says; None leaves it as it was.

    Where it cannot be written to that is said, and no more: without it each start quantizes again.

    Raises UsageError: it is no size, or cannot be kept there.
    """
    where = settings.cache_dir(folder)
    if limit is not None:
        size = 0 if limit == NONE else parse_size(limit, "--cache-limit")
        try:
            write_limit(where, size)
        except OSError as error:
            raise UsageError(f"--cache-limit cannot be kept in {where} ({error.strerror}): give another --cache") from None
    if trouble := _trouble(where):
        said = f"quantized weights cannot be kept in {where} ({trouble}): each start makes them anew; give another --cache"
        output.stderr().print(said, soft_wrap=True)
    return where


def _trouble(folder: Path) -> str:
    """Why nothing can be written there; empty where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(folder, os.W_OK) else "it is not yours to write to"
