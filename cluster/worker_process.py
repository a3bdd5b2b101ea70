"""One Worker process that this Rig owns: started, watched, started again, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.child import answer_of, end_child, lines_of, start_child
from cluster.spare import Spare
from swarm.errors import DeviceError

START_S = 120.0
"""How long a Worker may take until it serves: the import of torch from a cold disk, and a device's context."""
BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pause before each start in a row; a Worker that ran for `STEADY_S` begins again at the first."""
STEADY_S = 60.0
KEY, SETTLED = "key", "settled"
"""What a Worker tells its owner: the swarm's key from now on, and that the one before is not accepted any more."""


@dataclass(frozen=True)
class WorkerOrder:
    """How to start a Worker.

    Args:
        command: the program, without its options.
        listen: host:port to bind.
        address: host:port that others dial.
        cache: the folder of quantized weights; None: nothing is cached.
        log: where its standard error goes; that of the latest one before it that served is kept as `.1`.
        logs: the folder of this Rig's logs, where it writes what it says in order; None: nowhere.
    """

    command: Sequence[str]
    name: str
    device: str
    threads: int
    memory_bytes: int
    listen: str
    address: str
    key: str
    log: Path
    environment: Mapping[str, str]
    cache: Path | None = None
    logs: Path | None = None

    def options(self) -> list[str]:
        """What the program is started with."""
        options = ["--name", self.name, "--listen", self.listen, "--device", self.device]
        options += ["--threads", str(self.threads), "--memory-bytes", str(self.memory_bytes)]
        options += ["--cache", str(self.cache)] if self.cache else []
        return [*options, *(["--logs", str(self.logs)] if self.logs else [])]


class WorkerProcess:
    """Ends with this process, however that ends: its standard input closes then.

    Args:
        restarted: called with the Worker's address once it serves again, holding nothing.
        notify: takes what people should know.
        spare: takes its place when it ends, where one is warm.
        on_key: called with another key that the swarm gave it, and with nothing once the one before is worth nothing any more.
    """

    def __init__(
        self,
        order: WorkerOrder,
        restarted: Callable[[str], Awaitable[None]],
        notify: Callable[[str], None],
        spare: Spare | None = None,
        on_key: Callable[[str], None] = lambda key: None,
    ) -> None:
        self.order, self._spare, self._on_key = order, spare, on_key
        self._restarted, self._notify = restarted, notify
        self._process: asyncio.subprocess.Process | None = None
        self._key = ""  # which the one that runs was told last
        self._served = True  # whose log is there now; at first that of an earlier run

    @property
    def pid(self) -> int:
        """Its process id; 0 while there is none."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it and wait until it serves. Raises DeviceError with what it said last."""
        if self._served and self.order.log.exists():
            self.order.log.replace(self.order.log.with_name(f"{self.order.log.name}.1"))
        try:
            self._process, self._served = await self._begin(), False
        except OSError as error:
            raise DeviceError(f"the worker of {self.order.device} cannot be started: {error}") from None
        line = await answer_of(self._process, START_S)
        if not line.startswith(b"ready "):
            await self.stop()
            raise DeviceError(f"the worker of {self.order.device} did not start: {self._last_words()}")
        self._served = True

    async def watch(self) -> None:
        """Start it again whenever it ends, until cancelled."""
        loop = asyncio.get_running_loop()
        in_a_row = 0
        while True:
            since = loop.time()
            if self._process:  # there is none where it did not start, and that is said already
                self._notify(self._ended(await self._until_ended(self._process)))
            in_a_row = 0 if loop.time() - since > STEADY_S else in_a_row + 1
            await asyncio.sleep(BACKOFF_S[min(in_a_row - 1, len(BACKOFF_S) - 1)] if in_a_row else 0.0)
            try:
                await self.start()
            except DeviceError as error:
                self._notify(str(error))
            else:
                await self._restarted(self.order.address)

    async def _until_ended(self, process: Process) -> int:
        """Hear what it tells its owner until it ends; the exit code. What it started may hold its output open longer."""
        hearing = asyncio.create_task(self._hear(process))
        try:
            return await process.wait()
        finally:
            hearing.cancel()

    async def _hear(self, process: Process) -> None:
        async for line in lines_of(process):
            word, _, key = line.decode(errors="replace").strip().partition(" ")
            if word == KEY:
                self._key = key
            if word in (KEY, SETTLED):
                self._on_key(key)

    def settle(self) -> None:
        """The key before is over: a process that never heard of the order's is ended, so that it is started with that one."""
        if self._process and self._process.returncode is None and self._key != self.order.key:
            self._process.kill()

    async def stop(self) -> None:
        """End it; returns when it is gone."""
        process, self._process = self._process, None
        if process is not None:
            await end_child(process)

    async def _begin(self) -> Process:
        """A process that was told all, out of the warm one where there is one."""
        order, options = self.order, self.order.options()
        self._key = order.key
        if (warm := self._spare.take() if self._spare else None) is not None:
            told, process = json.dumps({"options": options, "log": str(order.log)}), warm
        else:
            told, process = order.key, await start_child((*order.command, *options), order.environment, order.log)
        assert process.stdin
        process.stdin.write(f"{told}\n".encode())
        return process

    def _ended(self, code: int) -> str:
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}: {self._last_words()}"
        return f"the worker of {self.order.device} ended ({why}); starting it again"

    def _last_words(self) -> str:
        """The last line of its log, for the message."""
        with contextlib.suppress(OSError):
            lines = self.order.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:300]
        return f"it said nothing, see {self.order.log}"
