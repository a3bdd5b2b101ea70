"""A Plan as a picture of its Rigs: Blocks and experts of each Device as a bar, and how full it is. 80 columns are enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from swarm.cli.tables import spans
from swarm.errors import gib
from swarm.plan import Plan, WorkerSpec

CELLS = 32
"""Of a bar of Blocks; a deeper model has several Blocks a cell."""
WIDTH = 79
WHOLE, SPLIT, EXPERTS, STANDBY, NONE = "█▓░▫·"
LEGEND = f"{WHOLE} blocks  {SPLIT} some experts elsewhere  {EXPERTS} others' experts  {STANDBY} standby"


def rigs_picture(plan: Plan, labels: Mapping[str, str]) -> RenderableType:
    """Every Rig of a Plan with its Devices.

    Args:
        labels: what is printed on a Device, by the name of its Worker.
    """
    model = plan.model
    title = f"{model.name} · {model.kept_as} · {plan.sessions} sessions of {plan.context} positions · {plan.objective}"
    lines: list[RenderableType] = [Text(title, style="bold")]
    for rig in dict.fromkeys(w.rig for w in plan.workers):
        lines.append(Text(rig, style="cyan"))
        for worker in plan.workers:
            if worker.rig == rig:
                lines += _device(plan, worker, labels.get(worker.name, ""))
    return Group(*lines, Text(LEGEND, style="dim"))


def _device(plan: Plan, worker: WorkerSpec, label: str) -> Iterator[RenderableType]:
    used = f"{gib(worker.planned_bytes)} of {gib(worker.memory_bytes)}, {gib(worker.memory_bytes - worker.planned_bytes)} free"
    name = f"  {short_name(worker)} {label}".rstrip()
    yield Text(name).append(used.rjust(WIDTH - len(name)), style="dim")
    below = Table.grid(padding=(0, 2))
    below.add_column(no_wrap=True)
    below.add_row(Text(f"    {block_bar(plan, worker.name)}", style="green"), "; ".join(_holds(plan, worker.name)))
    yield below


def short_name(worker: WorkerSpec) -> str:
    """A Worker's name within its Rig: `cuda:0`, `odd`; `w0 cpu` where it is named by hand."""
    rig, slash, device = worker.name.partition("/")
    return device if slash and rig == worker.rig else f"{worker.name} {worker.device}"


def block_bar(plan: Plan, name: str) -> str:
    """One row of cells over all Blocks of the model: which of them, or experts of them, a Worker holds."""
    count = plan.model.config.num_blocks
    each, wide = -(-count // CELLS), max(1, CELLS // count)
    kinds = [_kind(plan, name, block) for block in range(count)]
    groups = [kinds[at : at + each] for at in range(0, count, each)]
    return "".join(min(group, key=f"{WHOLE}{SPLIT}{EXPERTS}{STANDBY}{NONE}".index) * wide for group in groups)


def _kind(plan: Plan, name: str, block: int) -> str:
    route = plan.route_of(name)
    stage = plan.stage_of(name, route) if route is not None else None
    if stage is not None and block in stage.blocks:
        return SPLIT if plan.remote_experts(name, block) else WHOLE
    if any(s.block == block for s in plan.shards_of(name)):
        return EXPERTS
    return STANDBY if any(s.worker == name and block in s.blocks for s in plan.standbys) else NONE


def _holds(plan: Plan, name: str) -> Iterator[str]:
    route = plan.route_of(name)
    if route is not None and (stage := plan.stage_of(name, route)):
        on = f"route {route + 1}: " if len(plan.routes) > 1 else ""
        yield f"{on}{_blocks(stage.blocks)}"
    for copy in (False, True):
        shards = [s for s in plan.shards_of(name) if s.copy == copy]
        counted = sorted({(s.block, len(s.experts), s.experts) for s in shards})
        for of, experts in _alike(counted):
            copies = "copies of " if copy else ""
            yield f"{copies}{experts} of {_blocks(of)}"
    for standby in plan.standbys:
        if standby.worker == name:
            yield f"standby for {_blocks(standby.blocks)}"


def _alike(shards: Sequence[tuple[int, int, tuple[int, ...]]]) -> Iterator[tuple[list[int], str]]:
    """Neighbouring Blocks of which as many experts are held, and those; by their ids where it is one Block."""
    for count, group in groupby(shards, key=lambda shard: shard[1]):
        of = list(group)
        which = f"experts {spans(of[0][2])}" if len(of) == 1 else f"{count} experts" if count > 1 else "an expert"
        yield [block for block, _, _ in of], which if len(of) == 1 else f"{which} each"


def _blocks(blocks: Iterable[int]) -> str:
    ids = tuple(blocks)
    return f"block {ids[0]}" if len(ids) == 1 else f"blocks {spans(ids)}"
