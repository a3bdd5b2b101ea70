"""A Worker process that holds nothing and has imported everything: it takes the place of one that ended, without an import."""

from __future__ import annotations

import asyncio
import logging
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.child import answer_of, end_child, start_child

WARM_S = 120.0
"""How long it may take until it is warm: the import of torch from a cold disk."""
LATER_S = 5.0
"""How long nothing is imported once Workers serve, or one was taken: it would slow down what they load then."""
FAILED_S = 60.0
_LOG = logging.getLogger(__name__)


class Spare:
    """Keeps one warm for all Devices of a Rig. It costs the memory of an import (about 250 MB), and none of a card.

    Args:
        command: the Worker program, without its options.
        log: where its standard error goes until it is taken.
    """

    def __init__(self, command: Sequence[str], key: str, environment: Mapping[str, str], log: Path) -> None:
        self._command, self._key, self._environment, self._log = command, key, environment, log
        self._process: Process | None = None
        self._warm = False
        self._taken = asyncio.Event()

    @property
    def is_warm(self) -> bool:
        return self._warm and self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id; 0 while there is none."""
        return self._process.pid if self._process else 0

    def take(self) -> Process | None:
        """The process, which has its key and waits for its order (see `swarm.worker.__main__`); None while there is none."""
        if not self.is_warm:
            return None
        process, self._process, self._warm = self._process, None, False
        self._taken.set()
        return process

    def rekey(self, key: str) -> None:
        """The one that is warm has a key that is worth nothing soon: it ends, and another one is warmed with this one."""
        self._key = key
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def run(self) -> None:
        """Have one warm again and again, until cancelled."""
        await asyncio.sleep(LATER_S)
        while True:
            self._taken.clear()
            await asyncio.sleep(LATER_S if await self._until_gone() else FAILED_S)

    async def _until_gone(self) -> bool:
        """Start one, and wait until it was taken or ended; whether it was ever warm."""
        try:
            self._process = process = await start_child([*self._command, "--spare"], self._environment, self._log)
        except OSError as error:  # no memory or no descriptors for another process: Workers serve without a spare one
            _LOG.warning("no warm worker can be started: %s", error)
            return False
        assert process.stdin
        process.stdin.write(f"{self._key}\n".encode())
        self._warm = (await answer_of(process, WARM_S)).startswith(b"warm")
        if not self._warm:
            await end_child(process)
            return False
        ends = [asyncio.ensure_future(self._taken.wait()), asyncio.ensure_future(process.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
        return True

    async def stop(self) -> None:
        """End the one that was not taken."""
        process, self._process, self._warm = self._process, None, False
        if process is not None:
            await end_child(process)
