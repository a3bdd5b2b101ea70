"""What `swarm bench` found, for people: the runs, one token's waterfall, how busy each Stage was; 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from swarm.cli.bench_found import Found, Run, stages_of
from swarm.cli.waterfall_picture import waterfall_picture
from swarm.plan import Prediction

BUSY_CELLS = 8
MOST_COLUMNS = 4
"""Runs whose busy shares fit beside each other."""


def picture(found: Found) -> RenderableType:
    """Everything that was measured so far; `found` has one run at least."""
    plan, work = found.plan, found.work
    asked = f"prompts of {work.prompt} tokens, {work.new} new ones each{', speculating' if work.speculate else ''}"
    parts: list[RenderableType] = [
        Text(f"{plan.model.name} · {plan.model.kept_as} · epoch {plan.epoch}", style="bold"),
        Text(asked, style="dim"),
        Text(),
        _runs(found),
        *_drafts(found),
        *_power(found),
    ]
    alone = found.fewest
    for fall in alone.falls:
        parts += [Text(), waterfall_picture(fall, f"one token, {_sessions(alone)}")]
    parts += [Text(), _busy(found), Text(_bandwidth(found))]
    parts += [Text(note, style="yellow") for note in found.notes]
    return Group(*parts)


def _runs(found: Found) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("sessions", "first token", "tok/s a stream", "tok/s in all", "between: p50", "p99"):
        table.add_column(name, justify="right")
    for run in found.runs:
        f = run.figures
        name = f"{f.sessions} (cut)" if f.cut else str(f.sessions)
        rates = (f"{f.tokens_per_s:.1f}", f"{f.total_tokens_per_s:.1f}")
        table.add_row(name, f"{f.ttft_s:.2f} s", *rates, f"{f.itl_p50_s * 1e3:.1f} ms", f"{f.itl_p99_s * 1e3:.1f} ms")
    if found.plan.predicted:
        table.add_row(*_predicted(found.plan.predicted, found.plan.sessions), style="cyan")
    return table


def _predicted(expected: Prediction, sessions: int) -> tuple[str, ...]:
    rates = (f"{expected.tokens_per_s:.1f}", f"{expected.total_tokens_per_s:.1f} for {sessions}")
    return ("the Plan", f"{expected.ttft_s:.2f} s", *rates)


def _power(found: Found) -> Iterator[Text]:
    for run in found.runs:
        if run.watts is not None and run.joules_a_token is not None:
            drawn = f"the cards drew {run.watts:.0f} W, {run.joules_a_token:.1f} J a token"
            yield Text(f"{_sessions(run)}: {drawn}", style="dim")


def _drafts(found: Found) -> Iterator[Text]:
    if found.work.speculate:
        told = ", ".join(f"{kept} of {drafted}" for drafted, kept in (run.drafts for run in found.runs))
        yield Text(f"guessed tokens that were right: {told}", style="dim")


def _busy(found: Found) -> Table:
    """A Stage a line, a run a column; the runs with the most Sessions, where there are too many."""
    runs = found.runs[-MOST_COLUMNS:]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("busy", max_width=16, no_wrap=True, overflow="ellipsis")
    table.add_column("blocks", no_wrap=True)
    for run in runs:
        table.add_column(_sessions(run), no_wrap=True)
    routed = set()
    for stage in stages_of(found.plan):
        routed.add(stage.worker)
        blocks = f"{stage.first}-{stage.end - 1}" if len(stage.blocks) > 1 else str(stage.first)
        table.add_row(stage.worker, blocks, *(_share(run, stage.worker) for run in runs))
    for worker in found.plan.workers:
        if worker.name not in routed:
            table.add_row(worker.name, "", *(_share(run, worker.name) for run in runs))
    return table


def _share(run: Run, worker: str) -> Text:
    share = run.busy.get(worker)
    if share is None:
        return Text("did not say", style="dim")
    full = round(share * BUSY_CELLS)
    return Text().append("█" * full, style="green").append("░" * (BUSY_CELLS - full), style="dim").append(f" {share:4.0%}")


def _bandwidth(found: Found) -> str:
    share, why = found.bandwidth()
    if share is None:
        return f"share of the bandwidth limit: not known ({why})"
    doubt = " (its weights fit a cache, or others used the devices while they were measured)" if share > 1 else ""
    return f"{share:.0%} of what the measured bandwidths allow one stream{doubt}"


def _sessions(run: Run) -> str:
    count = run.figures.sessions
    return "1 session" if count == 1 else f"{count} sessions"
