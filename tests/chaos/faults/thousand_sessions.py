"""A stranger opens a thousand Sessions at once, and goes away while most of them wait: politely, or without a word.

What it leaves behind is given back when its lease is over or, where that is long, as what is abandoned.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from schedule import Blow

from faults.swarm_port import Swarm

COUNT = 1000
LEASE_S, LONG_S = 8.0, 600.0
PROGRAM = Path(__file__).parent.parent / "stranger_process.py"


async def strike(swarm: Swarm, blow: Blow) -> None:
    pipe = asyncio.subprocess.PIPE
    lease_s = LONG_S if blow.amount > 0.75 else LEASE_S
    stranger = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), swarm.address, str(COUNT), str(lease_s), stdin=pipe, stdout=pipe
    )
    assert stranger.stdin and stranger.stdout
    stranger.stdin.write(swarm.credentials.key.encode() + b"\n")
    assert await stranger.stdout.readline() == b"asks\n", "the stranger did not get to ask"
    with contextlib.suppress(TimeoutError):  # else all was answered in that time
        async with asyncio.timeout(blow.seconds):
            await stranger.wait()
    if stranger.returncode is None:
        stranger.send_signal(signal.SIGTERM if blow.amount < 0.5 else signal.SIGKILL)
    await stranger.wait()
