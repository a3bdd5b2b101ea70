"""A Plan as a picture for people: where each Block and each expert sits, and how full each Device is."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from swarm.errors import gib
from swarm.plan import Plan, WorkerSpec

BAR_CELLS = 8


def plan_picture(plan: Plan) -> RenderableType:
    """One line a Worker, Stages in their order and then those with ExpertShards only; then sums and the Plan's notes."""
    model = plan.model
    title = f"{model.name} · {model.kept_as} · {plan.sessions} sessions of {plan.context} positions"
    lines = [parts_text(plan), *plan.notes]
    return Group(Text(title, style="bold"), plan_table(plan), *(Text(line, style="dim") for line in lines))


def plan_table(plan: Plan) -> Table:
    """The Workers of a Plan: where each is, what it holds, and how full that makes its Device."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("worker", "where", "blocks", "experts of others", "planned", "free"):
        table.add_column(name, justify="right" if name == "free" else "left", no_wrap=name != "experts of others")
    for worker in plan.workers:
        table.add_row(
            worker.name,
            f"{worker.rig} {worker.device}",
            stage_text(plan, worker.name),
            shards_text(plan, worker.name),
            memory_bar(worker),
            gib(worker.memory_bytes - worker.planned_bytes),
        )
    return table


def parts_text(plan: Plan) -> str:
    """What the planned memory is for, over all Workers."""
    weights = sum(w.weights_bytes for w in plan.workers)
    kv, work = sum(w.kv_bytes for w in plan.workers), sum(w.workspace_bytes for w in plan.workers)
    return f"{gib(weights)} of weights, {gib(kv)} of KV, {gib(work)} of workspace"


def stage_text(plan: Plan, name: str) -> str:
    """The Blocks of a Worker's Stage on whichever Route, first to last: `0-4`; `-` for none."""
    route = plan.route_of(name)
    stage = None if route is None else plan.stage_of(name, route)
    if stage is None:
        return "-"
    return f"{stage.first}-{stage.end - 1}" if len(stage.blocks) > 1 else str(stage.first)


def shards_text(plan: Plan, name: str) -> str:
    """The experts that a Worker holds for others: `block 5: 6-7`; empty for none."""
    return ", ".join(f"block {s.block}: {spans(s.experts)}" for s in plan.shards_of(name))


def spans(ids: tuple[int, ...]) -> str:
    """Ascending ids with runs drawn together: `0-2,5`."""
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def memory_bar(worker: WorkerSpec) -> Text:
    """How full a Device is planned to be, and of how much."""
    share = worker.planned_bytes / worker.memory_bytes if worker.memory_bytes else 0.0
    full = round(share * BAR_CELLS)
    text = Text("█" * full, style="green" if share < 0.97 else "yellow")
    return text.append("░" * (BAR_CELLS - full), style="dim").append(f" {share:4.0%} of {gib(worker.memory_bytes)}", style="none")
