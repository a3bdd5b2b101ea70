"""Asking somebody whether he is there, by a clock that stands still while this process itself does not get to run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

TICK_S = 0.05
LATE_S = 0.1
"""What a tick may be late before that counts as a pause of this process's own loop."""
TRIES = 3


async def ask_presence(ping: Callable[[float], Awaitable[object]], seconds: float) -> None:
    """Return when an answer comes. Where this loop stood still meanwhile, so that it could come late or not be read, ask again.

    Args:
        ping: asks once, in so many seconds.

    Raises:
        AioRpcError: no answer came, also in the time that this loop had lost.
    """
    for left in reversed(range(TRIES)):
        pauses = _Pauses()
        counting = asyncio.create_task(pauses.count())
        try:
            await ping(seconds)
            return
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED or not left:
                raise
            await asyncio.sleep(TICK_S)  # so that a tick which is late by now is counted
            if not pauses.seconds:
                raise
            seconds = pauses.seconds
        finally:
            counting.cancel()


class _Pauses:
    """How long a loop stood still."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def count(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            if (late_s := loop.time() - due) > LATE_S:
                self.seconds += late_s
