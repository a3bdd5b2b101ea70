"""`swarm plan`: where everything would go, and why, without starting anything.

Where everything would go, on this machine or on the rigs of a file, and why, without starting anything. `MODEL` may also be a
folder with nothing but a `config.json`, or `mixtral-8x7b` or `mixtral-8x22b`, whose shapes are known: nothing is downloaded.

Without `--rigs` it plans on this machine's own devices and measures each kind of them for 3 seconds. With `--rigs` it plans on
what the makers of the cards print ([placement](placement.md) says how, and how a rigs file is written), and says what one more
RTX 3090, a 2.5 GbE switch, or RAM that is not offered would bring.

`--device`, `--ram`, `--exclude`, `--threads` and `--out` are about this machine and do not go with `--rigs`.

With `--json`: `{"stages": [{"worker", "rig", "device", "blocks": [first, end], "bytes"}], "shards": [{"worker", "block",
"experts": [ids], "bytes"}], "predicted": {"ttft_s", "tokens_per_s", "total_tokens_per_s", ...}, "bottleneck", "unused":
[{"device", "why"}], "advice": [...]}` and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cluster.device_spec import parse_device, parse_size
from cluster.hardware import Device, detect
from cluster.ports import DEFAULT_PORTS, parse_ports
from swarm.bits import with_forms
from swarm.cli import options, output, settings
from swarm.cli.plan_model import MODELS, check_can_be_loaded, model_to_plan
from swarm.errors import SwarmError, UsageError
from swarm.plan import Plan


def plan(
    model: Annotated[str, typer.Argument(help=MODELS)] = "nano",
    rigs: Annotated[
        Path | None, typer.Option("--rigs", metavar="FILE", help="Plan on the rigs of a file, not on this machine.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option("--device", metavar="SPEC", help="cuda:0, cuda:1=20GiB, cpu=4GiB.")] = None,
    ram: Annotated[str | None, typer.Option("--ram", metavar="SIZE", help="Host RAM beside the GPUs, such as 48GiB.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="DEVICE", help="A device to leave out.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="torch threads of each CPU device.")] = None,
    spread: Annotated[bool, typer.Option("--spread", help="Use every device, even where fewer would do.")] = False,
    dtype: Annotated[str, typer.Option("--dtype", help=options.DTYPES)] = "auto",
    group: options.Group = 0,
    attention: options.Attention = "",
    head: options.Head = "",
    kv: options.KV = "full",
    sessions: Annotated[int, typer.Option("--sessions", help="How many sessions to budget KV for.")] = 4,
    context: Annotated[int, typer.Option("--context", help="Positions of each session.")] = 8192,
    objective: Annotated[str, typer.Option("--objective", help="latency, throughput or balanced.")] = "balanced",
    standby: Annotated[bool, typer.Option("--standby", help="A second copy of every block, on another rig.")] = False,
    ports: Annotated[str, typer.Option("--ports", metavar="FIRST-LAST", help="Ports of the Workers in --out.")] = DEFAULT_PORTS,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the Plan, for `swarm worker --plan-file`.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Where everything would go, on this machine or on the rigs of a file, and why, without starting anything."""
    dtype = with_forms(dtype, group, attention, head)
    shape = model_to_plan(model, dtype, kv)
    if out is not None:
        check_can_be_loaded(model)
    if rigs is not None:
        _refuse({"--device": device, "--ram": ram, "--exclude": exclude, "--threads": threads, "--out": out})
        found: tuple[Device, ...] = ()
    else:
        specs = [parse_device(text) for text in device or ()]
        found = detect(specs, parse_size(ram, "--ram") if ram else None, exclude or (), threads)
    # Imported here, because it takes a solver, and the help of a command must be read where none is installed.
    from swarm.cli import planned

    load = planned.Load(sessions, context, spread, objective, standby)
    with output.only_ours():  # HiGHS says a word at times, which would stand in the JSON
        made = planned.of_file(rigs, shape, dtype, load) if rigs else planned.of_here(found, parse_ports(ports), shape, dtype, load)
    if out is not None:
        write_plan(out, made.plan)
    if as_json:
        output.print_json(made.document())
    else:
        planned.show(made)


def write_plan(path: Path, made: Plan) -> None:
    """Write a Plan to a file, whole or not at all. Raises SwarmError where the folder does not let us."""
    try:
        settings.write_private(path, made.to_json() + "\n")
    except OSError as error:
        raise SwarmError(f"the plan cannot be written to {path} ({error.strerror}): give another --out") from None


def _refuse(own: Mapping[str, object]) -> None:
    """Raise UsageError for an option that is about this machine."""
    given = next((name for name, value in own.items() if value), None)
    if given:
        ram = ', or offer RAM in the file as { card = "desktop CPU", free_gib = 24 }' if given == "--ram" else ""
        raise UsageError(f"{given} is about this machine and --rigs about those of a file: leave one of the two out{ram}")
