"""`swarm logs`, against a door and Workers over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import Ran, is_one_sentence, swarm
from fake_swarm import Door, listening

pytest.importorskip("torch")

from swarm.logs.record import Record
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import rig_pb2 as pb
from swarm.wire.v1.rig_pb2_grpc import add_RigServiceServicer_to_server
from swarm.worker.rig_servicer import RigServicer

KEY = "secret"


def say(folder: Path, rig: str, process: str, said: str, ago_s: float, level: str = "info") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{process}.jsonl").open("a") as file:
        file.write(Record(time.time() - ago_s, rig, process, level, said).line() + "\n")


class Ahead(RigServicer):
    """A rig whose clock is two minutes ahead."""

    async def Logs(self, request: Any, context: Any) -> AsyncIterator[pb.LogsReply]:
        at = time.time() + 120
        yield pb.LogsReply(rig_id="ahead", clock=at)
        yield pb.LogsReply(lines=[Record(at - 20, "attic", "up", "info", "by a wrong clock").line()])


@asynccontextmanager
async def rig(servicer: RigServicer) -> AsyncIterator[str]:
    credentials = Credentials(KEY)
    server = credentials.server()
    add_RigServiceServicer_to_server(servicer, server)
    port = credentials.bind(server, "127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def document(**rigs: str) -> dict[str, Any]:
    return {"workers": [{"rig": name, "name": f"{name}/cpu", "address": address} for name, address in rigs.items()]}


async def run(*words: str) -> Ran:
    return await asyncio.to_thread(swarm, *words, "--key", KEY)


async def test_what_two_rigs_said_comes_in_the_order_of_time(tmp_path: Path) -> None:
    say(tmp_path / "a", "attic", "up", "first", 30)
    say(tmp_path / "b", "cellar", "join", "second", 20, "warning")
    say(tmp_path / "a", "attic", "worker-cpu", "third", 10)
    say(tmp_path / "a", "attic", "up", "of last week", 8 * 86400)
    async with rig(RigServicer(tmp_path / "a", None)) as a, rig(RigServicer(tmp_path / "b", None)) as b:
        async with listening(Door(document(attic=a, **{"cellar-2": b})), KEY) as door:
            ran = await run("logs", "--swarm", door)
            assert ran.code == 0 and ran.err == ""
            assert [line.split()[-1] for line in ran.out.splitlines()] == ["first", "second", "third"]
            assert "cellar-2" in ran.out and "warning: second" in ran.out  # by the name that the swarm gave it
            as_json = [json.loads(line) for line in (await run("logs", "attic", "--json", "--swarm", door)).out.splitlines()]
            assert [(r["rig"], r["said"]) for r in as_json] == [("attic", "first"), ("attic", "third")]
            unknown = await run("logs", "garage", "--swarm", door)
            assert unknown.code == 2 and is_one_sentence(unknown.err) and "attic, cellar-2" in unknown.err
        ran = await run("logs", "--swarm", door)  # its door is closed: as when the Coordinator is dead
        assert ran.code == 0 and "does not answer" in ran.err and "third" in ran.out and "second" in ran.out


async def test_a_rig_that_does_not_answer_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    say(tmp_path / "a", "attic", "up", "hello", 30)
    async with rig(RigServicer(tmp_path / "a", None)) as a, listening(Door(document(attic=a, garage="127.0.0.1:1")), KEY) as door:
        ran = await run("logs", "--swarm", door)
    assert ran.code == 0 and "hello" in ran.out
    assert "garage does not show its logs" in ran.err and "run `swarm logs` on garage" in ran.err


async def test_a_wrong_clock_is_said_and_set_right() -> None:
    async with rig(Ahead(None, None)) as a, listening(Door(document(attic=a)), KEY) as door:
        ran = await run("logs", "--json", "--swarm", door)
    found = re.search(r"clock is (\d+) s ahead", ran.err)
    assert found and 60 < int(found[1]) <= 120, ran.err  # less by what the machine took to ask
    at = json.loads(ran.out)["at"]
    assert at < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


class Slow(RigServicer):
    """A rig with the right clock that is long in answering."""

    async def Logs(self, request: pb.LogsRequest, context: object) -> AsyncIterator[pb.LogsReply]:
        await asyncio.sleep(3.0)
        yield pb.LogsReply(rig_id="slow", clock=time.time())


async def test_a_slow_way_is_no_wrong_clock() -> None:
    async with rig(Slow(None, None)) as a, listening(Door(document(attic=a)), KEY) as door:
        ran = await run("logs", "--json", "--swarm", door)
    assert ran.code == 0 and "clock" not in ran.err


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["for people", "json"])
async def test_following_ends_quietly_when_nobody_reads_any_more(tmp_path: Path, words: tuple[str, ...]) -> None:
    say(tmp_path / "a", "attic", "up", "before", 30)
    async with rig(RigServicer(tmp_path / "a", None)) as a, listening(Door(document(attic=a)), KEY) as door:
        command = [sys.executable, "-m", "swarm.cli.main", "logs", "-f", *words, "--swarm", door, "--key", KEY]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout and process.stderr
        try:
            assert "before" in await asyncio.to_thread(process.stdout.readline)
            process.stdout.close()
            say(tmp_path / "a", "attic", "up", "after", 0)
            said = await asyncio.to_thread(process.stderr.read)
            assert "Traceback" not in said and "never retrieved" not in said, said
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


async def test_following_shows_what_is_said_from_now_on(tmp_path: Path) -> None:
    say(tmp_path / "a", "attic", "up", "before", 30)
    async with rig(RigServicer(tmp_path / "a", None)) as a, listening(Door(document(attic=a)), KEY) as door:
        command = [sys.executable, "-m", "swarm.cli.main", "logs", "-f", "--json", "--swarm", door, "--key", KEY]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            assert "before" in await asyncio.to_thread(process.stdout.readline)
            say(tmp_path / "a", "attic", "up", "after", 0)
            assert "after" in await asyncio.to_thread(process.stdout.readline)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


async def test_a_swarm_that_did_not_start_has_logs_too(own_home: Path) -> None:
    (own_home / "rig-1").mkdir(parents=True)
    (own_home / "rig-1" / "id").write_text("0123")
    say(own_home / "rig-1" / "logs", "attic", "up", "ends: no card", 5, "error")
    ran = await asyncio.to_thread(swarm, "logs")
    assert ran.code == 0 and "error: ends: no card" in ran.out
    ran = await asyncio.to_thread(swarm, "logs", "closet")
    assert (ran.code, ran.out) == (0, "") and "nothing was said by closet in that time" in ran.err


async def test_an_invitation_shows_no_logs(tmp_path: Path) -> None:
    say(tmp_path / "a", "attic", "up", "hello", 30)
    invited = (await run("key", "invite", "--swarm", "127.0.0.1:1")).out.strip()
    async with rig(RigServicer(tmp_path / "a", None)) as a, listening(Door(document(attic=a)), KEY) as door:
        ran = await asyncio.to_thread(swarm, "logs", "--swarm", door, "--key", invited)
    assert ran.code == 1 and is_one_sentence(ran.err) and "invitation" in ran.err and ran.out == ""
