"""The compute thread: the only thread that runs the model.

Two queues, shard work first: a Worker that waits for its own shards goes on serving others', so two Workers that hold
each other's shards never wait in a circle (promise 4). The thread takes shard work before each job, between Blocks
(`serve_shards`) and while it waits for a remote expert (`wait_for`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

import torch

Job = Callable[[], None]
_LOG = logging.getLogger(__name__)


END_S = 10.0
"""How long a process may take to end politely: with a card that answers no more it may never."""


def end_process() -> None:
    """End this process, politely if it can: its owner starts another."""
    hard = threading.Timer(END_S, os._exit, (1,))
    hard.daemon = True
    hard.start()
    os.kill(os.getpid(), signal.SIGTERM)


class Compute:
    """One thread with two queues of jobs. A job must not raise: it hands its own outcome on.

    Args:
        threads: torch threads inside the compute thread; 0 leaves torch's choice.
        name: for the thread, seen in profilers.
        failed: told, on the thread, that a job raised all the same; nothing is computed from then on.
    """

    def __init__(self, threads: int, name: str, failed: Callable[[], None] = end_process) -> None:
        self._threads = threads
        self._failed = failed
        self._bell: SimpleQueue[None] = SimpleQueue()
        """Rung behind every change that the thread may wait for; a ring that nobody waits for is heard later, and harmless."""
        self._shard_jobs: deque[Job] = deque()
        self._jobs: deque[Job] = deque()
        self._stopped = False
        self.busy_s = 0.0
        self._began: float | None = None
        """When the job at hand was begun, of `time.perf_counter`."""
        self._thread = threading.Thread(target=self._run, name=f"compute {name}", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue Stage work."""
        self._jobs.append(job)
        self._bell.put(None)

    def submit_shard(self, job: Job) -> None:
        """Queue shard work of another Worker: goes before all Stage work."""
        self._shard_jobs.append(job)
        self._bell.put(None)

    @property
    def in_job_s(self) -> float:
        """How long the job at hand has been running; 0 where there is none."""
        began = self._began
        return 0.0 if began is None else time.perf_counter() - began

    async def passed(self) -> None:
        """Return when the thread has let go of all Stage work that was queued before this call."""
        loop, reached = asyncio.get_running_loop(), asyncio.Event()
        self.submit(lambda: _set_on(loop, reached))
        await reached.wait()

    def serve_shards(self) -> None:
        """Run the shard work that waits. Called on the compute thread between Blocks."""
        while self._shard_jobs:
            self._shard_jobs.popleft()()

    def wait_for(self, ready: Callable[[], bool], deadline: float) -> bool:
        """Wait on the compute thread until `ready()`, serving shards meanwhile. False when the deadline came first.

        Whoever makes it ready calls `wake`. `deadline` is of `time.monotonic`.
        """
        while not ready():
            self.serve_shards()
            left = deadline - time.monotonic()
            if left <= 0 or self._stopped:
                return ready()
            with suppress(Empty):
                self._bell.get(timeout=left)
        return True

    def wake(self) -> None:
        """Something that `wait_for` waits for has happened."""
        self._bell.put(None)

    def stop(self) -> None:
        """Let the running job finish, drop the others, end the thread."""
        self._stopped = True
        self._bell.put(None)
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._threads or torch.get_num_threads())  # else a loading thread could change it
        try:
            with torch.inference_mode():
                while (job := self._next()) is not None:
                    self._began = started = time.perf_counter()
                    job()
                    del job  # holds a Plan's weights, which another Plan may need the room of before the next job comes
                    self._began = None
                    self.busy_s += time.perf_counter() - started
        except BaseException:  # noqa: BLE001  (whatever it is, a Worker without this thread is none)
            _LOG.exception("the compute thread ended: so does this worker, which others would find there and never done")
            self._failed()

    def _next(self) -> Job | None:
        while not self._stopped:
            if self._shard_jobs:
                return self._shard_jobs.popleft()
            if self._jobs:
                return self._jobs.popleft()
            self._bell.get()
        return None


def _set_on(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)
