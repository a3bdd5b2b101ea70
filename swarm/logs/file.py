"""Where a process of the swarm keeps what it says: `logging`, caught in a file that never grows large."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Self

from swarm.logs.record import Record

FILE_BYTES = 2**20
"""A process has this file and one before it."""
OURS = ("swarm", "cluster")
ENDING = ".jsonl"


class LogFile(RotatingFileHandler):
    """Catches what this process says, from its entry as a context to its exit: of our own modules from INFO up, of others WARNING.

    A disk that does not take it is no reason to stop serving: such lines are lost.

    Args:
        folder: of this rig's logs; made, for this user only.
        rig: its name; it may be given another one later.
        process: what this process is, also the file's name.
    """

    def __init__(self, folder: Path, rig: str, process: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{process.replace(' ', '-').replace(':', '-').replace('/', '-')}{ENDING}"
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=1, encoding="utf-8", errors="replace", delay=True)
        self.rig, self._process = rig, process

    def format(self, record: logging.LogRecord) -> str:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        said, level = " ".join(record.getMessage().split()), record.levelname.lower()
        return Record(record.created, self.rig, self._process, level, said, record.name, trace).line()

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: standard error may be the same full disk."""

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        for name in OURS:
            logging.getLogger(name).setLevel(logging.INFO)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        logging.getLogger().removeHandler(self)
        self.close()
