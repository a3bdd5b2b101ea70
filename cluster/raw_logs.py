"""What a Rig's Workers write to standard error beside their logs (drivers, crashes) is kept small."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

LOOK_S = 60.0
MOST_BYTES = 2**20
KEPT_BYTES = 2**16
_LOG = logging.getLogger(__name__)


async def keep_small(folder: Path) -> None:
    """Look at the raw logs in a Rig's folder again and again, until cancelled."""
    while True:
        make_small(folder)
        await asyncio.sleep(LOOK_S)


def make_small(folder: Path) -> None:
    """Empty those that grew beyond `MOST_BYTES` and keep their end beside them. Who writes opened them for appending."""
    for path in folder.glob("worker-*.log"):
        try:
            if path.stat().st_size <= MOST_BYTES:
                continue
            with path.open("rb") as file:
                file.seek(-KEPT_BYTES, os.SEEK_END)
                path.with_name(f"{path.name}.1").write_bytes(file.read())
            os.truncate(path, 0)
        except OSError as error:
            _LOG.warning("%s cannot be made small: %s", path.name, error.strerror)
