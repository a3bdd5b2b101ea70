"""`swarm worker`: one Worker without Ray, from a Plan in a file, in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from swarm.cli import options, settings
from swarm.wire.credentials import Credentials


def worker(
    plan_file: Annotated[Path, typer.Option("--plan-file", metavar="FILE", help="The Plan, as `swarm plan --out FILE` wrote it.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Which of its Workers to be.")],
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Serve one Worker of a Plan file until Ctrl-C or SIGTERM. Without a key it answers whoever can reach it."""
    plan = options.read_plan(plan_file)
    plan.worker(name)
    from swarm.worker.process import serve_plan  # brings torch

    asyncio.run(_until_told(serve_plan(plan, name, Credentials(settings.explicit_key(key, key_file)))))


async def _until_told(serving: Coroutine[Any, Any, None]) -> None:
    """Run until it ends, or until SIGINT or SIGTERM cancels it, which is a good end."""
    task = asyncio.ensure_future(serving)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
