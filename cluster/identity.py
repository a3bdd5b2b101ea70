"""Who this Rig is: an id that it keeps across restarts and addresses."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

ID_BYTES = 64


class Identity:
    """One of this user's Rigs on this machine: the first whose folder nobody uses now. Held until `close`.

    Two Rigs may run here at once (a head, and one that joins it); each start takes the ids in the same order.
    """

    def __init__(self, state_dir: Path) -> None:
        number = 1
        while (file := _claim(state_dir / f"rig-{number}")) is None:
            number += 1
        self.folder = state_dir / f"rig-{number}"
        self._file = file
        self.rig_id = os.pread(file, ID_BYTES, 0).decode().strip() or uuid.uuid4().hex
        os.pwrite(file, self.rig_id.encode(), 0)

    def close(self) -> None:
        """Let another Rig be this one."""
        os.close(self._file)


def _claim(folder: Path) -> int | None:
    """The open, locked id file of a folder; None where another process has it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(folder / "id", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
