"""A Worker process that ends: what is said of it, and what is left to read."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from claimed_ports import HOST, claimed_port
from own_rig import FAKE

from cluster.spare import Spare
from cluster.worker_process import WorkerOrder, WorkerProcess
from swarm.errors import DeviceError

DEADLINE_S = 90.0
LIVES_LEFT = """
import sys
from pathlib import Path
lives = Path(sys.argv[1])
left = int(lives.read_text())
lives.write_text(str(left - 1))
if left == 1:
    raise SystemExit("no such device")
print("ready here", flush=True)
sys.stdin.readline()
if left == 2:
    raise SystemExit("out of memory")
sys.stdin.read()
"""


async def test_a_crash_can_be_read_after_the_restart_and_a_start_that_fails_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.worker_process.BACKOFF_S", (0.0,))
    lives, log = tmp_path / "lives", tmp_path / "worker-cpu.log"
    lives.write_text("2")
    said: list[str] = []
    back = asyncio.Event()

    async def restarted(address: str) -> None:
        back.set()

    command = (sys.executable, "-c", LIVES_LEFT, str(lives))
    worker = WorkerProcess(WorkerOrder(command, "w", "cpu", 1, 1, "", "", "k", log, os.environ), restarted, said.append)
    await worker.start()
    watching = asyncio.create_task(worker.watch())
    await asyncio.wait_for(back.wait(), DEADLINE_S)
    watching.cancel()
    await worker.stop()
    assert said == [
        "the worker of cpu ended (exit 1: out of memory); starting it again",
        "the worker of cpu did not start: no such device",
    ]
    assert log.with_name("worker-cpu.log.1").read_text() == "out of memory\n"


async def test_a_killed_worker_is_replaced_by_the_warm_one_which_was_there_before_it_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.spare.LATER_S", 0.0)
    log, command = tmp_path / "worker-cpu.log", (sys.executable, FAKE)
    spare = Spare(command, "k", os.environ, tmp_path / "worker-spare.log")
    keeping = asyncio.create_task(spare.run())
    back = asyncio.Event()

    async def restarted(address: str) -> None:
        back.set()

    where = f"{HOST}:{claimed_port()}"
    order = WorkerOrder(command, "w", "cpu", 1, 1, where, where, "k", log, os.environ)
    worker = WorkerProcess(order, restarted, print, spare)
    await worker.start()
    watching = asyncio.create_task(worker.watch())
    async with asyncio.timeout(DEADLINE_S):
        while not spare.is_warm:
            await asyncio.sleep(0.01)
        before, warm = worker.pid, spare.pid
        os.kill(before, signal.SIGKILL)
        await back.wait()
    assert worker.pid == warm != spare.pid
    keeping.cancel()
    watching.cancel()
    await asyncio.gather(keeping, watching, return_exceptions=True)
    await asyncio.gather(worker.stop(), spare.stop())


async def test_a_warm_worker_ends_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.spare.LATER_S", 0.0)
    spare = Spare((sys.executable, FAKE), "k", os.environ, tmp_path / "worker-spare.log")
    keeping = asyncio.create_task(spare.run())
    async with asyncio.timeout(DEADLINE_S):
        while not spare.is_warm:
            await asyncio.sleep(0.01)
        pid = spare.pid
        keeping.cancel()
        await spare.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_where_no_process_can_be_started_there_is_no_warm_one_and_the_rig_goes_on(tmp_path: Path) -> None:
    nowhere = (str(tmp_path / "nothing"),)
    spare = Spare(nowhere, "k", os.environ, tmp_path / "worker-spare.log")
    assert not await spare._until_gone() and not spare.is_warm
    order = WorkerOrder(nowhere, "w", "cpu", 1, 1, "127.0.0.1:1", "127.0.0.1:1", "k", tmp_path / "worker-cpu.log", os.environ)
    with pytest.raises(DeviceError, match="the worker of cpu cannot be started: "):
        await WorkerProcess(order, AsyncMock(), print).start()


SAYS_ITS_KEY = """
import sys
key = sys.stdin.readline().strip()
open(sys.argv[1], "a").write(key + " ")
print("ready here", flush=True)
sys.stdin.read()
"""


async def test_a_worker_that_never_heard_of_another_key_is_started_with_it_once_the_old_one_is_over(tmp_path: Path) -> None:
    heard, back = tmp_path / "heard", asyncio.Event()

    async def restarted(address: str) -> None:
        back.set()

    command = (sys.executable, "-c", SAYS_ITS_KEY, str(heard))
    order = WorkerOrder(command, "w", "cpu", 1, 1, "", "", "old", tmp_path / "worker-cpu.log", os.environ)
    worker = WorkerProcess(order, restarted, print)
    await worker.start()
    watching = asyncio.create_task(worker.watch())
    worker.settle()  # it has the key there is
    worker.order = replace(order, key="new")
    worker.settle()
    await asyncio.wait_for(back.wait(), DEADLINE_S)
    watching.cancel()
    await worker.stop()
    assert heard.read_text() == "old new "
