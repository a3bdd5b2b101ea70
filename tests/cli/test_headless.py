"""`swarm status` while the Coordinator does not answer: what is gone, what still works, what to do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from claimed_ports import HOST, claimed_port
from commands import Ran, is_one_sentence, swarm
from fake_swarm import Door, OneWorker, listening, plan_for

from swarm.wire.v1 import worker_pb2 as pb

KEY = ("--key", "k")


def nobody() -> str:
    """An address where nobody listens."""
    return f"{HOST}:{claimed_port()}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_HOME", str(tmp_path))


async def run(*words: str) -> Ran:
    """A command beside the servers of this test's loop."""
    return await asyncio.to_thread(swarm, *words, *KEY)


async def told_by(*serving: str) -> tuple[Ran, Ran]:
    """A swarm of w0 and w1 is seen once; then its door closes, and of the Workers only these serve. As a picture, as a document."""
    statuses = {name: pb.WorkerStatus(name=name, pid=7) for name in ("w0", "w1")}
    workers = {name: OneWorker(status) for name, status in statuses.items()}
    async with listening(workers["w0"], "k") as a, listening(workers["w1"], "k") as b:
        at = {"w0": a, "w1": b}
        plan = plan_for({name: at[name] if name in serving else nobody() for name in at})
        document = {"workers": [{"rig": "attic", "name": w.name, "address": w.address} for w in plan.workers]}
        async with listening(Door(document), "k") as door:
            await run("status", "--json", "--swarm", door)
        for name in serving:
            statuses[name].epoch, statuses[name].plan = plan.epoch, plan.to_json()
        return await run("status", "--swarm", door), await run("status", "--swarm", door, "--json")


async def test_status_says_that_the_coordinator_is_gone_that_chats_go_on_and_what_to_do() -> None:
    shown, listed = await told_by("w0", "w1")
    said = shown.err
    assert shown.code == listed.code == 1 and said == listed.err and said.count("\n") == 1
    assert said.startswith("swarm: the Coordinator of the swarm at 127.0.0.1:") and "run `swarm up` on the head rig again" in said
    assert "all 2 workers serve on, so running chats go on; new chats, joining and leaving wait" in said
    assert "w0" in shown.out and "tiny" in shown.out
    document = json.loads(listed.out)
    assert document["silence"] in said and [w["alive"] for w in document["workers"]] == [True, True]


async def test_a_worker_that_is_gone_as_well_is_named() -> None:
    shown, listed = await told_by("w1")
    assert "1 of 2 workers serve on, w0 not, so chats that need it and new chats" in shown.err
    assert [w["alive"] for w in json.loads(listed.out)["workers"]] == [False, True]


async def test_where_nobody_answers_any_more_it_is_one_sentence_with_the_rigs() -> None:
    shown, _ = await told_by()
    assert is_one_sentence(shown.err) and "nor any worker of attic" in shown.err and "run `swarm up` on the head rig" in shown.err


async def test_a_swarm_that_was_never_seen_is_as_before() -> None:
    shown = await run("status", "--swarm", nobody())
    assert is_one_sentence(shown.err) and "check the address" in shown.err
