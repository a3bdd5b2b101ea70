"""`swarm worker`: one Worker without Ray, from a Plan in a file, in the foreground.

One Worker without Ray, from a Plan in a file, in the foreground until Ctrl-C or SIGTERM. Its key is what it asks of
others, over TLS; without one, or `SWARM_KEY`, it answers whoever can reach it, in plain text; an empty one is refused.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from swarm.cli import options, output, settings
from swarm.cli.cache_limit import limited_cache
from swarm.wire.credentials import Credentials


def worker(
    plan_file: Annotated[Path, typer.Option("--plan-file", metavar="FILE", help="The Plan, as `swarm plan --out FILE` wrote it.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Which of its Workers to be.")],
    weights_from: Annotated[
        list[str] | None,
        typer.Option("--weights-from", metavar="ADDRESS", help="A Worker to take weights from that are not here; repeatable."),
    ] = None,
    cache: options.Cache = None,
    cache_limit: options.CacheLimit = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Serve one Worker of a Plan file until Ctrl-C or SIGTERM. Without a key it answers whoever can reach it."""
    plan = options.read_plan(plan_file)
    plan.worker(name)
    from swarm.worker.process import Source, serve_plan  # brings torch

    settings.hub_cache(cache)

    console = output.stderr()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{name} loads {plan.model.name}")

        def progress(loaded: int, total: int) -> None:
            bar.update(task, completed=loaded, total=total)

        def serves(address: str) -> None:
            bar.stop()
            console.print(f"{name} serves at {address}")

        credentials = Credentials(settings.explicit_key(key, key_file), name)
        source = Source(limited_cache(cache, cache_limit), tuple(weights_from or ()))
        asyncio.run(serve_plan(plan, name, credentials, source, serves, progress))
