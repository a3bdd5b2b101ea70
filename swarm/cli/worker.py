"""`swarm worker`: one Worker without Ray, from a Plan in a file, in the foreground."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.status import Status

from swarm.cli import options, output, settings
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

    with output.stderr().status(f"{name} starts") as shown:
        asyncio.run(serve_plan(plan, name, Credentials(settings.explicit_key(key, key_file)), Notices(shown).show))


class Notices:
    """What a Worker says of itself: on one line that changes at a terminal, and without its percentages elsewhere."""

    def __init__(self, line: Status) -> None:
        self._line = line
        self._subject = ""

    def show(self, message: str) -> None:
        subject = message.partition(":")[0]
        if self._line.console.is_terminal:
            self._line.update(message)
        elif subject != self._subject:
            self._line.console.print(message)
        self._subject = subject
