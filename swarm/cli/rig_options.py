"""What `up` and `join` share: the options that say what this rig gives, and running until somebody ends it."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from cluster.device_spec import parse_device, parse_size
from cluster.hardware import detect
from cluster.hardware.host import read_host
from cluster.rig import RigSettings
from swarm.cli import settings
from swarm.cli.screen import Screen

Device = Annotated[
    list[str] | None,
    typer.Option(
        "--device", metavar="SPEC", help="cuda:0, cuda:1=20GiB, cpu=4GiB; repeatable. [default: every usable GPU, or half the RAM]"
    ),
]
Ram = Annotated[str | None, typer.Option("--ram", metavar="SIZE", help="Host RAM beside the GPUs, such as 48GiB.")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", metavar="DEVICE", help="A device to leave out; repeatable.")]
Threads = Annotated[
    int | None, typer.Option("--threads", help="torch threads of each CPU device. [default: the cores shared out evenly]")
]
Spread = Annotated[bool, typer.Option("--spread", help="Use every device, even where fewer would do.")]
Address = Annotated[str | None, typer.Option("--address", metavar="HOST", help="Where others dial this rig. [default: found out]")]
Ports = Annotated[str, typer.Option("--ports", metavar="FIRST-LAST", help="One range for everything, Ray's included.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What this rig is called. [default: the host's name]")]

SPARE_FROM_BYTES = 2**30
"""Host RAM beside what the Devices give, from which on one warm empty Worker process (about 250 MB) is kept."""


def rig_settings(
    device: list[str] | None, ram: str | None, exclude: list[str] | None, threads: int | None, name: str | None, **rest: Any
) -> RigSettings:
    """What this rig gives and where.

    Args:
        rest: host, key, ports, spread, cache and notify of `RigSettings`.

    Raises:
        UsageError: an option that makes no sense. DeviceError: a Device that cannot be used.
    """
    devices = detect([parse_device(s) for s in device or ()], parse_size(ram, "--ram") if ram else None, exclude or (), threads)
    beside = max(0, read_host().available_bytes - sum(d.memory_bytes for d in devices if d.torch_device == "cpu"))
    return RigSettings(
        name=name or platform.node().partition(".")[0] or "rig",
        devices=devices,
        ram_bytes=beside,
        spare=beside >= SPARE_FROM_BYTES,
        text=True,
        state_dir=settings.state_dir(),
        environment=dict(os.environ),
        **rest,
    )


def run_until_stopped(screen: Screen, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run until it ends, or until Ctrl-C, SIGTERM or SIGHUP, which let it clean up. A further one cuts that short.

    Raises what `serve` raises.
    """
    asyncio.run(_until_stopped(screen, serve))


async def _until_stopped(screen: Screen, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(serve())
    stopped = False

    def stop(number: signal.Signals) -> None:
        nonlocal stopped
        said, stopped = "ending at once ..." if stopped else "ending ... (once more: at once)", True
        task.cancel()
        screen.tell(said)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise
