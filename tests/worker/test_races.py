"""The loop and the compute thread share Sessions: whichever comes first, nothing runs over what is not held."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from plans import plan_of
from raw_client import raw, step
from swarm_processes import workers_here

from swarm.wire.v1 import stage_pb2 as pb

TEXT = list(range(300, 340))


class LockWith(contextlib.AbstractContextManager[None]):
    """A lock behind whose first release something comes at once, as from the other thread."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._then: Callable[[], None] | None = then

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        then, self._then = self._then, None
        if then is not None:
            then()


async def test_a_step_admitted_just_before_the_one_it_builds_on_failed_is_a_gap() -> None:
    plan = plan_of([8])
    async with workers_here(plan) as workers, raw(plan) as client:
        name = await client.open(64)
        first, second = step(name, TEXT, 0, 10), step(name, TEXT, 10, 11)
        await client.ask(first)
        current = workers["w0"].epochs.current
        assert current is not None
        session = current.pool.table.get(name)
        assert session is not None
        current.pool.lock = LockWith(lambda: session.fail(first.serial, first.position))  # type: ignore[assignment]
        status = await client.fails(second)
        assert (status.code, status.held) == (pb.GAP, 0)
        assert await client.ask(step(name, TEXT, 0, 10))
