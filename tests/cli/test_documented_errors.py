"""Sentences of docs/troubleshooting.md that nothing else provokes."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path

import pytest
from commands import is_one_sentence, swarm
from fake_swarm import Door, listening

from swarm.errors import Full
from swarm.wire.credentials import Credentials


async def test_a_key_for_a_swarm_without_tls_is_one_sentence() -> None:
    async with listening(Door({})) as door:
        ran = await asyncio.to_thread(swarm, "status", "--swarm", door, "--key", "secret")
    assert ran.code == 1 and is_one_sentence(ran.err) and "cannot be talked to" in ran.err


def test_a_swarm_that_is_on_its_way_is_not_ended_but_waited_for(own_home: Path) -> None:
    own_home.mkdir()
    with (own_home / "head.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = swarm("down")
    assert ran.code == 1 and is_one_sentence(ran.err) and "is starting or ending here: try again" in ran.err


async def test_a_queue_that_is_full_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from swarm.wire.v1 import stage_pb2 as pb
    from swarm.worker import opening, turns
    from swarm.worker.callers import Caller
    from swarm.worker.epoch import Epochs
    from swarm.worker.peers import Peers

    monkeypatch.setattr(turns, "QUEUE_LENGTH", 0)
    full = opening.Opening("w0", Epochs("w0"), Peers(Credentials()))
    with pytest.raises(Full, match="w0: 0 sessions wait already: try again later"):
        await anext(aiter(full.open(pb.OpenRequest(session=bytes(16), positions=8), Caller("w0"))))
