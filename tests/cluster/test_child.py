"""What is read of a process that this Rig owns."""

from __future__ import annotations

import asyncio
import sys

from cluster.child import lines_of


async def test_a_line_that_is_too_long_to_be_kept_is_left_out_and_those_behind_it_are_heard() -> None:
    code = "for what in ('first', 'x' * 300000, 'last'): print(what, flush=True)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        said = [line.strip() async for line in lines_of(process)]
    assert said[0] == b"first" and said[-1] == b"last"
    assert await process.wait() == 0
