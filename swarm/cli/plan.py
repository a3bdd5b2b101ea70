"""`swarm plan`: where everything would go, and why, without starting anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cluster.advice import Adviser, Home
from cluster.device_spec import parse_device, parse_size
from cluster.dry_run import DryRun, dry_run
from cluster.hardware import detect
from cluster.planner import Load, left_out, make_plan, needed_bytes, reads
from cluster.ports import DEFAULT_PORTS, parse_ports
from cluster.rigs_file import RigDevice, read_rigs
from swarm.cli import options, output, settings
from swarm.cli.plan_document import Unused, document
from swarm.cli.plan_here import best_home, home
from swarm.cli.plan_model import DTYPES, MODELS, check_can_be_loaded, model_to_plan
from swarm.cli.plan_picture import rigs_picture
from swarm.cli.silence import silence
from swarm.cli.tables import parts_text
from swarm.errors import DoesNotFit, PlacementError, SwarmError, UsageError, gib
from swarm.plan import Plan

LESS = "--context, --sessions or --dtype"


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
    dtype: Annotated[str, typer.Option("--dtype", help=DTYPES)] = "auto",
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
    load = Load(sessions, context, spread, objective, standby)
    shape = model_to_plan(model, dtype)
    if out is not None:
        check_can_be_loaded(model)
    if rigs is not None:
        _refuse({"--device": device, "--ram": ram, "--exclude": exclude, "--threads": threads, "--out": out})
        with silence():
            dry = dry_run(read_rigs(rigs), shape, dtype, load)
            planned = on_rigs(dry, load)
    else:
        specs = [parse_device(text) for text in device or ()]
        found = detect(specs, parse_size(ram, "--ram") if ram else None, exclude or (), threads)
        with silence():
            within = parse_ports(ports)
            here, why = best_home(found, within, shape, load) if dtype == "auto" else (home(found, within, shape), "")
            planned = on_home(here, load, why)
    if out is not None:
        write_plan(out, planned.plan)
    if as_json:
        output.print_json(document(planned.plan, list(planned.unused()), planned.advice, load))
    else:
        show(planned)


@dataclass(frozen=True)
class Planned:
    """A Plan, what it was made of, and what else is to be said.

    Args:
        left: Devices that torch could not use, and why.
        labels: what is printed on each Device, by the name of its Worker.
    """

    plan: Plan
    home: Home
    load: Load
    advice: tuple[str, ...]
    left: tuple[tuple[RigDevice, str], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def unused(self) -> Iterator[Unused]:
        """Devices that the Plan leaves out, and those that torch could not use."""
        for worker, why in left_out(self.plan, [d.spec for d in self.home.hardware.devices], self.load):
            yield Unused(worker.name, worker.rig, worker.device, worker.memory_bytes, why)
        for device, why in self.left:
            yield Unused(device.name, device.rig, device.torch_device, device.memory_bytes, f"{device.card.name}: {why}")


def on_home(home: Home, load: Load, why: str = "") -> Planned:
    """Plan, with advice. Raises PlacementError, which says what would help, where the model does not fit.

    Args:
        why: why it is in a lesser dtype than its own; a note of the Plan.
    """
    adviser = Adviser(home, load)
    try:
        made = make_plan(home.model, home.hardware, load, epoch=1)
        made = replace(made, notes=(*made.notes, *([why] if why else [])))
    except DoesNotFit as error:
        cure = adviser.cure()
        if not cure:
            raise
        needs = f"{home.model.name} in {home.model.dtype} needs {gib(error.needed_bytes)}"
        have = f"the devices have {gib(error.available_bytes)}"
        raise PlacementError(f"{needs}, {have}; {cure}; or give more memory, or ask for less with {LESS}") from None
    return Planned(made, home, load, tuple(adviser.gains(made.predicted)) if made.predicted else ())


def on_rigs(dry: DryRun, load: Load) -> Planned:
    """Plan on the Rigs of a file; see `on_home`."""
    labels = {d.name: d.card.name for d in dry.rigs.devices if d.card.name not in d.name}
    return replace(on_home(dry.home, load, dry.why), left=dry.left, labels=labels)


def show(planned: Planned) -> None:
    """Print a Plan for people."""
    console = output.stdout()
    made = planned.plan
    console.print(rigs_picture(made, planned.labels))
    for line in (parts_text(made), _sums(made, planned.load)):
        console.print(Text(line, style="dim"))
    for line in _expected(made):
        console.print(Text(line))
    for device, why in planned.left:
        console.print(Text(f"{device.name} ({device.card.name}) not used: {why}", style="yellow"))
    for line in made.notes:
        console.print(Text(line, style="dim"))
    for line in planned.advice:
        console.print(Text(f"with {line}"))


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


def _expected(made: Plan) -> Sequence[str]:
    if made.predicted is None:
        return ()
    p = made.predicted
    many = f", {p.total_tokens_per_s:.1f} tok/s for {made.sessions} sessions" if made.sessions > 1 else ""
    first = f"first token after {p.ttft_s:.2f} s (a prompt of {made.chunk_rows} tokens)"
    return (f"predicted: {p.tokens_per_s:.1f} tok/s for one stream{many}; {first}", f"bottleneck: {p.bottleneck}")


def _sums(made: Plan, load: Load) -> str:
    total, have = sum(w.planned_bytes for w in made.workers), sum(w.memory_bytes for w in made.workers)
    alone, token = gib(needed_bytes(made.model, load)), gib(sum(r.weights_bytes for r in reads(made)))
    return f"{gib(total)} planned of {gib(have)}; on one device it would be {alone}; a token reads {token} of weights"
