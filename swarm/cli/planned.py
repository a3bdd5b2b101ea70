"""A Plan that is made to be looked at: of the rigs of a file or of this machine, with advice, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from cluster.advice import Adviser, Home
from cluster.dry_run import DryRun, dry_run
from cluster.hardware import Device
from cluster.planner import NOT_USED, Load, left_out, make_plan, needed_bytes, reads
from cluster.rigs_file import RigDevice, read_rigs
from swarm.cli import output
from swarm.cli.plan_document import Unused, document
from swarm.cli.plan_here import best_home, crowded, home
from swarm.cli.plan_picture import rigs_picture
from swarm.cli.silence import silence
from swarm.cli.status_measured import limit_text
from swarm.cli.tables import parts_text
from swarm.errors import DoesNotFit, PlacementError, gib, rate
from swarm.plan import Model, Plan

__all__ = ["Load", "Planned", "of_file", "of_here", "on_home", "on_rigs", "show"]

LESS = "--context, --sessions or --dtype"


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

    def document(self) -> dict[str, Any]:
        """For `--json`; see `swarm.cli.plan_document`."""
        return document(self.plan, list(self.unused()), self.advice, self.load)


def of_file(path: Path, model: Model, dtype: str, load: Load) -> Planned:
    """Plan on the Rigs of a file, in the best dtype that fits where `dtype` is "auto". Raises as `read_rigs` and `on_home`."""
    with silence():
        return on_rigs(dry_run(read_rigs(path), model, dtype, load), load)


def of_here(devices: Sequence[Device], ports: range, model: Model, dtype: str, load: Load) -> Planned:
    """Plan on Devices of this machine; see `of_file`. Raises as `home` and `on_home`."""
    busy = crowded(devices)
    with silence():
        here, why = best_home(devices, ports, model, load) if dtype == "auto" else (home(devices, ports, model), "")
        return on_home(here, load, why, busy)


def on_home(home: Home, load: Load, *notes: str) -> Planned:
    """Plan, with advice. Raises PlacementError, which says what would help, where the model does not fit.

    Args:
        notes: of the Plan, as why it is in a lesser dtype than its own; empty ones are left out.
    """
    lesser = bool(notes and notes[0])
    adviser = Adviser(home, load, f", still in {home.model.dtype}" if lesser else "")
    try:
        made = make_plan(home.model, home.hardware, load, epoch=1)
        made = replace(made, notes=(*made.notes, *filter(None, (*notes, home.model.again))))
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
        console.print(Text(_with_card(line, planned.labels), style="dim"))
    for line in planned.advice:
        console.print(Text(f"with {line}"))


def _with_card(note: str, labels: Mapping[str, str]) -> str:
    """A note about a Device that is not used, with the card that it is."""
    name, found, why = note.partition(NOT_USED)
    return f"{name} ({labels[name]}){found}{why}" if name in labels else note


def _expected(made: Plan) -> Sequence[str]:
    if made.predicted is None:
        return ()
    p = made.predicted
    many = f", {rate(p.total_tokens_per_s)} for {made.sessions} sessions" if made.sessions > 1 else ""
    first = f"first token after {p.ttft_s:.2f} s (a prompt of {made.chunk_rows} tokens)"
    return (f"predicted: {rate(p.tokens_per_s)} for one stream{many}; {first}", f"bottleneck: {limit_text(p.bottleneck)}")


def _sums(made: Plan, load: Load) -> str:
    total, have = sum(w.planned_bytes for w in made.workers), sum(w.memory_bytes for w in made.workers)
    alone, read = gib(needed_bytes(made.model, load)), sum(r.weights_bytes for r in reads(made))
    token = gib(read / len(made.routes))  # each has all Blocks, and a token goes over one
    return f"{gib(total)} planned of {gib(have)}; on one device it would be {alone}; a token reads {token} of weights"
