"""A process that this Rig owns: it ends with this one, however that ends, since its standard input closes then."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

STOP_S = 5.0


async def start_child(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start it, with pipes for what it is told and answers; its standard error goes to `log`, emptied before."""
    log.unlink(missing_ok=True)
    with log.open("ab") as said:  # to its end, wherever that is after somebody made it small
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=said,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C in the terminal is for the owner, which drains first
        )


async def answer_of(process: Process, seconds: float) -> bytes:
    """The next line that it says; empty where none comes in time."""
    assert process.stdout
    try:
        async with asyncio.timeout(seconds):
            return await process.stdout.readline()
    except TimeoutError:
        return b""


async def lines_of(process: Process) -> AsyncIterator[bytes]:
    """What it says until it ends, line by line; one that is too long to be kept is left out."""
    assert process.stdout
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            continue
        if not line:
            return
        yield line


async def end_child(process: Process) -> None:
    """End it politely, and after a while without asking; returns when it is gone."""
    if process.returncode is not None:
        return
    assert process.stdin
    process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
