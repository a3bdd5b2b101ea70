"""`swarm pause`: give a card back for a while.

Give a card back, for an evening's gaming: what it holds moves to the other devices while they serve, then its memory is free.
Before that it is told what will be lost, as the planner predicts it (`gaming-pc cuda:0: 10.9 GiB free in about 6 s; 31.0 to 24.2
tok/s`), and asked, unless `--yes` is given. Where the other devices do not hold the model, that is told and asked as well: nobody
is answered then until `swarm resume`; answers under way go on after it.

Without `RIG` it is this machine; without `--device`, all of its devices. It lasts until `swarm resume`, also when the rig or the
Coordinator is started again; `swarm up` begins with nothing paused. `swarm status` shows what is paused.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import grpc.aio
import typer

from swarm.cli import options, output
from swarm.cli.log_sources import own_logs
from swarm.cli.settings import state_dir
from swarm.cli.status import ask
from swarm.errors import UsageError, gib
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

Rig = Annotated[str, typer.Argument(metavar="[RIG]", help="A rig by its name. [default: this machine]")]
Device = Annotated[
    str, typer.Option("--device", metavar="SPEC", help="One device, as `swarm status` names it: cuda:0. [default: all of the rig]")
]


def pause(
    rig: Rig = "",
    device: Device = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    swarm: options.Swarm = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Give a card back for a while: what it holds moves to the other devices. `swarm resume` has it planned on again."""
    target = options.target(swarm, key, key_file)
    request, loss = asyncio.run(_ask_loss(target, rig, device))
    output.stderr().print(said(loss), highlight=False, soft_wrap=True)
    if yes or _agreed(loss):  # on the main thread and in no loop: Ctrl-C ends a line that is read there only
        asyncio.run(_pause(target, request))
    else:
        output.stderr().print("nothing is paused")


async def _ask_loss(target: options.Target, rig: str, device: str) -> tuple[pb.PauseRequest, pb.PauseLossReply]:
    request = pb.PauseRequest(rig=rig or await own_rig(target), device=device)
    async with target.channel() as channel:
        try:
            return request, await SwarmServiceStub(channel).PauseLoss(request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, target.what) from None


async def _pause(target: options.Target, request: pb.PauseRequest) -> None:
    async with target.channel() as channel:
        await show(target, lambda: SwarmServiceStub(channel).Pause(request))


def said(loss: pb.PauseLossReply) -> str:
    """What a pause will cost, for people."""
    names = ", ".join(name.replace("/", " ") for name in loss.devices)
    if loss.shortage:
        free = f"{names}: {gib(loss.bytes)} free"
        return f"{free}; the rest does not hold the model ({loss.shortage}): no answers until `swarm resume`"
    if not loss.bytes:
        return f"{names}: nothing is held there now"
    rates = f"{loss.tokens_per_s:.1f} to {loss.tokens_per_s_left:.1f} tok/s"
    return f"{names}: {gib(loss.bytes)} free in about {max(1.0, loss.seconds):.0f} s; {rates}"


async def own_rig(target: options.Target) -> str:
    """The id of this machine's rig in that swarm. Raises UsageError where it has none, or several."""
    rigs = {str(rig["id"]): str(rig["name"]) for rig in (await ask(target)).get("rigs", ())}
    here = [rig_id for rig_id in own_logs(state_dir()) if rig_id in rigs]
    if len(here) != 1:
        which = "is none of its rigs" if not here else "has several of its rigs"
        raise UsageError(f"this machine {which}: give one of {', '.join(rigs.values()) or 'those that will join'}")
    return here[0]


async def show(target: options.Target, begin: Callable[[], Any]) -> None:
    """Show what happens until it is done. Raises what it fails with."""
    console = output.stderr()
    happening: AsyncIterator[pb.Progress] = begin()
    try:
        async for progress in happening:
            if progress.done:
                output.stdout().print(progress.message, highlight=False, soft_wrap=True)
            elif console.is_terminal:
                console.print(progress.message, style="dim")
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, target.what) from None


def _agreed(loss: pb.PauseLossReply) -> bool:
    """Ask, where that costs anything. Raises UsageError where nobody can be asked."""
    if not loss.bytes and not loss.shortage:
        return True
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked whether to pause it: give --yes")
    sys.stderr.write("pause? [y/N] ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        sys.stderr.write("\n")  # Ctrl-D leaves the cursor behind the question
    return line.strip().lower() in ("y", "yes")
