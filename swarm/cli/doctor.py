"""Whether this machine could join a swarm, and what to mend where not. Changes nothing, and joins nothing.

Looks at GPU, driver, CUDA and torch; at memory, disk, clock, ports and network; and at what is installed. With `ADDRESS` the
swarm's rigs dial this machine on all ports of the range and are dialled from here, versions and clocks are compared, and the link
to each rig is measured for 2 s. Exit code 1 where something would stop a join (`stop`); what a `note` says only costs cards or
speed. Works on a machine without torch and Ray, too, and says what is missing for a rig.

With `--json`: `{"fits": bool, "findings": [{"about", "level": "ok" | "note" | "stop", "what", "remedy"}], "links": [{"rig",
"rtt_ms", "there_gbit_s", "back_gbit_s"}]}`.
"""

from __future__ import annotations

import asyncio
import platform
from typing import Annotated

import typer
from rich.text import Text

from cluster.address import own_address
from cluster.doctor.finding import Level
from cluster.ports import DEFAULT_PORTS
from swarm.cli import options, output, rig_options, settings
from swarm.cli.examination import Examined, Machine, examine

_STYLE = {Level.OK: "green", Level.NOTE: "yellow", Level.STOP: "red"}


def doctor(
    swarm: Annotated[str | None, typer.Argument(metavar="ADDRESS", help="Visit the swarm at HOST:PORT, too.")] = None,
    address: rig_options.Address = None,
    ports: rig_options.Ports = DEFAULT_PORTS,
    name: rig_options.Name = None,
    cache: options.Cache = None,
    as_json: options.Json = False,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Whether this machine could join a swarm, and what to mend where not."""
    door = settings.parse_address(swarm) if swarm else ""
    machine = Machine(
        name=name or platform.node().partition(".")[0] or "this machine",
        host=address or (own_address(door.rpartition(":")[0].strip("[]")) if door else own_address()),
        ports=ports,
        cache=cache,
        swarm=door,
        key=settings.resolve_key(key, key_file, door) if door else "",
    )
    examined = asyncio.run(examine(machine))
    if as_json:
        output.print_json(examined.document())
    else:
        _show(examined)
    if not examined.fits:
        raise typer.Exit(1)


def _show(examined: Examined) -> None:
    console = output.stdout()
    for f in examined.findings:
        console.print(Text(f"{f.level.value:5}", _STYLE[f.level]).append(f"{f.about:9} {f.what}", "none"), soft_wrap=True)
        if f.remedy:
            console.print(f"{'':15}-> {f.remedy}", soft_wrap=True)
    stops = sum(f.level == Level.STOP for f in examined.findings)
    console.print("a join would work" if examined.fits else f"a join would not work: {stops} to mend, marked stop", soft_wrap=True)
