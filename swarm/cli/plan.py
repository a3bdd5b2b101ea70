"""`swarm plan`: where everything would go, and why, without starting anything."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from cluster.device_spec import parse_device, parse_size
from cluster.hardware import Device, detect
from cluster.planner import Load, Prices, left_out, make_plan, needed_bytes, reads
from cluster.ports import DEFAULT_PORTS, parse_ports
from swarm.cli import options, output, settings
from swarm.cli.tables import plan_picture
from swarm.errors import SwarmError, UsageError, gib
from swarm.plan import Plan, WorkerSpec
from swarm.weights.describe import describe

HERE = "127.0.0.1"


def plan(
    model: Annotated[str, typer.Argument(help="A folder, a Hub id, or nano.")] = "nano",
    device: Annotated[list[str] | None, typer.Option("--device", metavar="SPEC", help="cuda:0, cuda:1=20GiB, cpu=4GiB.")] = None,
    ram: Annotated[str | None, typer.Option("--ram", metavar="SIZE", help="Host RAM beside the GPUs, such as 48GiB.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="DEVICE", help="A device to leave out.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="torch threads of each CPU device.")] = None,
    spread: Annotated[bool, typer.Option("--spread", help="Use every device, even where fewer would do.")] = False,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, fp32, fp16 or bf16.")] = "auto",
    sessions: Annotated[int, typer.Option("--sessions", help="How many sessions to budget KV for.")] = 4,
    context: Annotated[int, typer.Option("--context", help="Positions of each session.")] = 8192,
    ports: Annotated[str, typer.Option("--ports", metavar="FIRST-LAST", help="Ports of the Workers in --out.")] = DEFAULT_PORTS,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the Plan, for `swarm worker --plan-file`.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Where everything would go on this machine, and why, without starting anything."""
    load = Load(sessions, context, spread)
    shape = describe(model, dtype)
    specs = [parse_device(text) for text in device or ()]
    found = detect(specs, parse_size(ram, "--ram") if ram else None, exclude or (), threads)
    workers = name_workers(found, parse_ports(ports))
    made = make_plan(shape, workers, load, epoch=1)
    if out is not None:
        write_plan(out, made)
    if as_json:
        output.print_json(document(made, workers, load))
        return
    console = output.stdout()
    console.print(plan_picture(made))
    console.print(Text(_sums(made, load), style="dim"))


def name_workers(devices: Sequence[Device], ports: range) -> list[WorkerSpec]:
    """Workers w0, w1, ... of this machine, one a Device. Raises UsageError where the ports do not go round."""
    if len(ports) < len(devices):
        raise UsageError(f"{len(devices)} devices need as many ports, --ports gives {len(ports)}: give a longer range")
    rig = platform.node().partition(".")[0] or "here"
    return [
        WorkerSpec(f"w{i}", rig, d.torch_device, f"{HERE}:{ports[i]}", d.memory_bytes, threads=d.threads)
        for i, d in enumerate(devices)
    ]


def write_plan(path: Path, made: Plan) -> None:
    """Write a Plan to a file, whole or not at all. Raises SwarmError where the folder does not let us."""
    try:
        settings.write_private(path, made.to_json() + "\n")
    except OSError as error:
        raise SwarmError(f"the plan cannot be written to {path} ({error.strerror}): give another --out") from None


def document(made: Plan, devices: Sequence[WorkerSpec], load: Load) -> dict[str, Any]:
    """What `swarm plan --json` prints; all sizes in bytes, Blocks as [first, end)."""
    expert = Prices.of(made.model, load).expert
    held = {w.name: sum(len(s.experts) for s in made.shards_of(w.name)) * expert for w in made.workers}
    by_name = {w.name: w for w in made.workers}
    return {
        "model": made.model.name,
        "dtype": made.model.dtype,
        "sessions": made.sessions,
        "context": made.context,
        "needed_bytes": needed_bytes(made.model, load),
        "stages": [
            {
                "worker": s.worker,
                "rig": by_name[s.worker].rig,
                "device": by_name[s.worker].device,
                "blocks": [s.first, s.end],
                "bytes": by_name[s.worker].planned_bytes - held[s.worker],
            }
            for s in made.routes[0].stages
        ],
        "shards": [
            {"worker": s.worker, "block": s.block, "experts": list(s.experts), "bytes": len(s.experts) * expert}
            for s in made.shards
        ],
        "workers": [{**asdict(w), "free_bytes": w.memory_bytes - w.planned_bytes} for w in made.workers],
        "predicted": predicted(made),
        "unused": [
            {"worker": w.name, "rig": w.rig, "device": w.device, "memory_bytes": w.memory_bytes, "why": why}
            for w, why in left_out(made, devices, load)
        ],
        "notes": list(made.notes),
    }


def predicted(made: Plan) -> dict[str, Any]:
    """What the Plan alone tells of one token of one Session; times need measured Devices."""
    split = len({s.block for s in made.shards})
    return {
        "one_way_transfers_per_token": len(made.routes[0].stages) + 1,
        "shard_round_trips_per_token": split,
        "reads_per_token": [asdict(r) for r in reads(made)],
    }


def _sums(made: Plan, load: Load) -> str:
    total, have = sum(w.planned_bytes for w in made.workers), sum(w.memory_bytes for w in made.workers)
    alone, token = gib(needed_bytes(made.model, load)), gib(sum(r.weights_bytes for r in reads(made)))
    return f"{gib(total)} planned of {gib(have)}; on one device it would be {alone}; a token reads {token} of weights"
