"""A Worker that was stopped does not outlive its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

DEADLINE_S = 120.0
OWNER = """
import asyncio, os, sys
from pathlib import Path
from cluster.child import answer_of, start_child

async def main():
    worker = await start_child((sys.executable, "-m", "swarm.worker", "--spare"), os.environ, Path(sys.argv[1]))
    worker.stdin.write(b"key\\n")
    print((await answer_of(worker, 100.0)).decode().strip(), worker.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stopped process hears nothing of its owner's end")
async def test_a_stopped_worker_ends_with_its_owner(tmp_path: Path) -> None:
    log = str(tmp_path / "worker.log")
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, log, stdout=PIPE)
    assert owner.stdout
    async with asyncio.timeout(DEADLINE_S):
        word, _, pid = (await owner.stdout.readline()).decode().strip().partition(" ")
        assert word == "warm"
        worker = psutil.Process(int(pid))
        try:
            os.kill(worker.pid, signal.SIGSTOP)
            while worker.status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0.01)
            owner.kill()
            await owner.wait()
            with suppress(psutil.NoSuchProcess):
                while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
                    await asyncio.sleep(0.05)
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
