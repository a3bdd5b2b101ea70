"""The loop and the compute thread share Sessions: whichever comes first, nothing runs over what is not held."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

import pytest
from plans import plan_of
from raw_client import raw, step
from swarm_processes import workers_here

from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.sessions import Session

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


async def test_opening_again_while_a_step_fails_tells_what_is_held_then(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of([8])
    async with workers_here(plan) as workers, raw(plan) as client:
        name = await client.open(64)
        first = step(name, TEXT, 0, 10)
        await client.ask(first)
        current = workers["w0"].epochs.current
        assert current is not None
        pool, really = current.pool, Session.common_prefix
        failing: list[threading.Thread] = []

        def fail(session: Session) -> None:
            with pool.lock:
                session.fail(first.serial, first.position)

        def meanwhile(session: Session, hashes: Sequence[int]) -> int:
            failing.append(threading.Thread(target=fail, args=(session,)))
            failing[0].start()
            failing[0].join(0.1)
            return really(session, hashes)

        monkeypatch.setattr(Session, "common_prefix", meanwhile)
        assert await client.reopen(name, 64, TEXT) == 10
        failing[0].join()
        monkeypatch.undo()
        assert await client.reopen(name, 64, TEXT) == 0
