"""`swarm load`: give the running swarm another model.

Give the running swarm another model; rigs, key and processes stay. A folder is meant as the head rig sees it. What `--dtype auto`
chose stays until the next `load` or `up`, so that rigs that come or go change no answer. The plan's notes say why it is less than
the checkpoint's own (`int4: bf16 needs 91.0 GiB, the swarm has 45.0 GiB`) and when a better one would fit; a swarm that has
become too small says in which dtype it would fit.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import grpc.aio
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from swarm.bits import AUTO, with_forms
from swarm.cli import options, output
from swarm.errors import SwarmError
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub


def load(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a Hub id or `nano`, as the head of the swarm sees it.")],
    dtype: Annotated[str, typer.Option("--dtype", help=f"{options.DTYPES} [default: as before]")] = "",
    group: options.Group = 0,
    attention: options.Attention = "",
    head: options.Head = "",
    kv: options.KV = "",
    sessions: Annotated[int, typer.Option("--sessions", min=0, show_default="as before", help="Sessions to have KV for.")] = 0,
    context: Annotated[int, typer.Option("--context", min=0, show_default="as before", help="Positions of each Session.")] = 0,
    objective: options.Objective = "",
    standby: Annotated[
        bool | None, typer.Option("--standby/--no-standby", help="Keep a copy of every Block on another rig. [default: as before]")
    ] = None,
    swarm: options.Swarm = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Give the swarm another model; rigs, key and processes stay, the memory of the old one comes back."""
    options.check_objective(objective)
    if dtype or group or attention or head:
        dtype = with_forms(dtype or AUTO, group, attention, head)
    request = pb.LoadRequest(
        model=_as_the_head_sees_it(model), dtype=dtype, sessions=sessions, context=context, objective=objective, kv=kv
    )
    if standby is not None:
        request.standby = standby
    done = asyncio.run(_load(options.target(swarm, key, key_file), request))
    output.stdout().print(done)


def _as_the_head_sees_it(model: str) -> str:
    """An absolute path where it is a folder or a file here (the head has another working folder), else the id as given."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model


async def _load(target: options.Target, request: pb.LoadRequest) -> str:
    """Show the swarm's progress and return its last word. Raises what the swarm answers."""
    async with target.channel() as channel:
        with _bar() as bar:
            task = bar.add_task("loading", total=1.0)
            stub = SwarmServiceStub(channel)
            said: list[str] = []
            try:
                async for progress in stub.Load(request):
                    if progress.lines and list(progress.lines) != said:
                        said = list(progress.lines)
                        bar.console.print("\n".join(said), soft_wrap=True)
                    if progress.done:
                        return str(progress.message)
                    bar.update(task, description=progress.message, completed=progress.fraction)
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error, target.what) from None
    raise SwarmError(f"{target.what} stopped before {request.model} was loaded: look at `swarm status`")


def _bar() -> Progress:
    console = output.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
