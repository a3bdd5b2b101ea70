"""What Workers write to standard error does not fill a disk."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from cluster import raw_logs
from cluster.child import answer_of, end_child, start_child

CODE = """
import sys
def say(text):
    sys.stderr.write(text)
    sys.stderr.flush()
    print("said", flush=True)
say("x" * 3_000_000 + "the end")
sys.stdin.readline()
say("and more")
sys.stdin.readline()
"""


async def test_a_process_that_floods_its_raw_log_leaves_the_end_of_it_and_writes_on(tmp_path: Path) -> None:
    log = tmp_path / "worker-cpu.log"
    log.write_text("of an earlier run")
    process = await start_child((sys.executable, "-c", CODE), os.environ, log)
    try:
        assert await answer_of(process, 60.0) == b"said\n"
        assert log.stat().st_size > raw_logs.MOST_BYTES
        raw_logs.make_small(tmp_path)
        assert process.stdin
        process.stdin.write(b"go on\n")
        assert await answer_of(process, 60.0) == b"said\n"
    finally:
        await end_child(process)
    assert log.read_text() == "and more"
    kept = log.with_name("worker-cpu.log.1").read_text()
    assert kept.endswith("xthe end") and len(kept) == raw_logs.KEPT_BYTES
    await asyncio.to_thread(raw_logs.make_small, tmp_path / "nothing here")
