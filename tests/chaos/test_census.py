"""What counts as left over after a fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from census import MORE_BYTES, MORE_FDS, Held, Snapshot, left_over

WORKER = Held("worker", 30, 20, 2**28)


def seen(*workers: Held, first: int = 1, **said: Any) -> Snapshot:
    told = {"name": "rig-a/cpu", "sessions": 0, "memory": {"kv_used_bytes": 0}} | said
    return Snapshot(dict(enumerate(workers, first)), [told])


def test_nothing_is_left_over_where_all_is_as_it_was_or_started_anew() -> None:
    assert left_over(seen(WORKER, WORKER), seen(WORKER, WORKER)) == []
    assert left_over(seen(WORKER, WORKER), seen(WORKER, WORKER, first=7)) == []
    assert left_over(seen(WORKER), seen(replace(WORKER, fds=29 + MORE_FDS))) == []


def test_processes_descriptors_threads_memory_and_sessions_that_stay_are_named() -> None:
    before = seen(WORKER)
    assert left_over(before, seen(WORKER, WORKER)) == ["2 worker processes, 1 at first"]
    assert left_over(before, seen()) == ["0 worker processes, 1 at first"]
    tool = Held("other", 3, 1, 2**24, "a tool")
    assert left_over(seen(tool), seen()) == ["0 other processes, 1 at first (a tool)"]
    actor = replace(WORKER, role="actor")
    assert left_over(seen(actor, actor), seen(actor)) == [] and left_over(seen(actor), seen(actor, actor))
    for more in (replace(WORKER, fds=99), replace(WORKER, threads=99), replace(WORKER, resident_bytes=2**28 + MORE_BYTES + 1)):
        assert len(left_over(before, seen(more))) == 1 and len(left_over(before, seen(more, first=9))) == 1
    assert left_over(before, seen(WORKER, sessions=2)) == ["rig-a/cpu still has 2 sessions, 0 bytes of KV"]


def test_what_the_harness_itself_has_open_is_nobodys_loss() -> None:
    relay = Held("relay", 10, 1, 2**24)
    assert left_over(seen(relay), seen(replace(relay, fds=900))) == []
