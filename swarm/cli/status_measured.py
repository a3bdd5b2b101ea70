"""What was measured, and what the Plan is expected to do, for people: the lower half of `swarm status`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from swarm.errors import rate
from swarm.plan import WAY_ROUND


def measured(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Speeds of the Devices, links between Rigs, prediction beside what is measured now; each only where it is known."""
    if workers := [w for w in document.get("workers", ()) if w.get("measured")]:
        yield _devices(workers)
    if links := document.get("links"):
        yield _links(links)
    yield from expected(document)


def _devices(workers: Sequence[Mapping[str, Any]]) -> Table:
    table = columns("measured", "reads GB/s", "TFLOP/s", "kernel µs", "now")
    for worker in workers:
        found = worker["measured"]
        slowed = float(found["slowed"])
        now = Text(f"{slowed:.1f} times slower", style="red") if slowed > 1 else Text("as measured", style="green")
        figures = (f"{found['bandwidth_gb_s']:.1f}", f"{found['tflops']:.2f}", f"{found['start_us']:.1f}")
        table.add_row(str(worker["name"]), *figures, now)
    return table


def _links(links: Sequence[Mapping[str, Any]]) -> Table:
    table = columns("link", "rtt ms", "Gbit/s", "measured at")
    for link in links:
        a, b = link["between"]
        name, at = f"inside {a}" if a == b else f"{a} - {b}", time.strftime("%H:%M", time.localtime(link["at"]))
        if None in (link["rtt_ms"], link["gbit_s"]):
            table.add_row(name, "", "", Text(f"{at}: {link['why']}", style="red"))
        else:
            table.add_row(name, f"{link['rtt_ms']:.2f}", f"{link['gbit_s']:.2f}", at)
    return table


def expected(document: Mapping[str, Any]) -> Iterator[Text]:
    """What the Plan is expected to do, beside what is measured now."""
    if predicted := document.get("predicted"):
        one, all_, first = (float(predicted[k]) for k in ("tokens_per_s", "total_tokens_per_s", "ttft_s"))
        now = float(document.get("tokens_per_s") or 0)
        yield Text(f"planned for {document.get('objective', 'balanced')}")
        yield Text(f"bottleneck: {limit_text(document.get('bottleneck') or WAY_ROUND)}")
        together = rate(all_).removesuffix(" tok/s")
        yield Text(f"predicted: one stream {rate(one)}, all {together}, first token {first:.2f} s; now: {now:.1f} tok/s")
    for copy in document.get("standbys") or ():
        first_block, end = copy["blocks"]
        yield Text(f"standby copy of blocks {first_block}-{end - 1} on {copy['worker']}")


def limit_text(bottleneck: str) -> str:
    """What keeps all Sessions together from being quicker, as a Prediction has it, and what would help."""
    if bottleneck == WAY_ROUND:
        return "no device is full: more chats at once bring more tok/s in all"
    what = "link" if bottleneck.startswith("link ") else "device there"
    return f"{bottleneck}, full when all chat at once: a faster {what} brings most"


def columns(*names: str) -> Table:
    """A table without lines; what is a number stands on the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, justify="right" if name in NUMBERS else "left")
    return table


NUMBERS = ("used", "free", "of", "sessions", "tok/s", "reads GB/s", "TFLOP/s", "kernel µs", "rtt ms", "Gbit/s")
"""Columns that hold numbers."""
