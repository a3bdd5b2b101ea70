"""A person at a terminal: lines typed, and Ctrl-C, for work that runs in asyncio.

Python reads lines (with editing and history) and hears Ctrl-C on the main thread only, and blocks while it reads. So
the work has a thread and a loop of its own, which go on while the person types: keepalives, news of the Plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

HEAR_S = 0.5
"""How late a Ctrl-C may be heard that comes in the moment before waiting begins, which does not interrupt it."""


class Terminal:
    """The main thread of an interactive command."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[str, Future[str | None]] | None] = queue.SimpleQueue()

    async def line(self, prompt: str) -> str | None:
        """The next line that the person types, without its end; None when there will be none (Ctrl-D). Called by the work."""
        typed: Future[str | None] = Future()
        self._wanted.put((prompt, typed))
        return await asyncio.wrap_future(typed)

    def serve(self, work: Coroutine[Any, Any, None], interrupt: Callable[[], bool]) -> None:
        """Run the work to its end on a thread of its own and read the lines that it asks for. Called on the main thread.

        Args:
            work: what to run; what it raises is raised here.
            interrupt: called in the work's loop at Ctrl-C outside of a line; whether there was something to stop. If
                there was not, the work is cancelled and KeyboardInterrupt raised.
        """
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() edits lines where it is loaded)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(loop,), name="chat")
        thread.start()
        running = asyncio.run_coroutine_threadsafe(work, loop)
        running.add_done_callback(lambda _: self._wanted.put(None))
        try:
            self._read_until_done(loop, running, interrupt)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _read_until_done(self, loop: asyncio.AbstractEventLoop, running: Future[None], interrupt: Callable[[], bool]) -> None:
        while True:
            try:
                while True:  # inside of the try: Ctrl-C is heard where a loop turns, too
                    try:
                        wanted = self._wanted.get(timeout=HEAR_S)
                    except queue.Empty:
                        continue
                    if wanted is None:
                        return running.result()
                    wanted[1].set_result(_read(wanted[0]))
            except KeyboardInterrupt:
                if not _in_loop(loop, interrupt):
                    _in_loop(loop, running.cancel)
                    raise


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Until it is stopped; then what is still under way is cancelled and waited for, which leaves no word about it."""
    loop.run_forever()
    loop.run_until_complete(_end_all())
    loop.run_until_complete(loop.shutdown_asyncgens())


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _read(prompt: str) -> str | None:
    """One line; a line given up with Ctrl-C is empty."""
    if not sys.stdout.isatty():
        sys.stderr.write(prompt)
        prompt = ""
    try:
        return input(prompt)
    except EOFError:
        sys.stderr.write("\n")
        return None
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return ""


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], bool]) -> bool:
    done: Future[bool] = Future()
    loop.call_soon_threadsafe(lambda: done.set_result(function()))
    return done.result()
