"""The live screen of `swarm status --watch`: rigs and Devices as bars of what they hold. Fits 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from swarm.cli.status_measured import expected
from swarm.cli.status_table import blocks_of, experts_of, headline
from swarm.errors import gib

BAR, LEAST_BAR = 24, 6
"""Cells of a bar, and of one where there is little room."""
BESIDE = 56
"""Columns that the rest of a bar's line takes."""
KINDS = (("weights_bytes", "green"), ("kv_used_bytes", "cyan"), ("kv_free_bytes", "blue"), ("workspace_bytes", "magenta"))
"""What a bar shows, from the left."""
LEGEND = "weights", "caches in use", "caches free", "workspace"


class BusyShares:
    """By Worker, the share of the time between two looks in which it computed."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def of(self, document: Mapping[str, Any]) -> dict[str, float]:
        """A Worker seen for the first time, or started anew, is not in it."""
        shares = {}
        for worker in document.get("workers", ()):
            name, up_s, busy_s = worker["name"], float(worker.get("up_s") or 0), float(worker.get("busy_s") or 0)
            before_up_s, before_busy_s = self._seen.get(name, (up_s, busy_s))
            if up_s > before_up_s and busy_s >= before_busy_s:
                shares[name] = min(1.0, (busy_s - before_busy_s) / (up_s - before_up_s))
            self._seen[name] = up_s, busy_s
        return shares


def watch_picture(
    document: Mapping[str, Any], rates: Mapping[str, float], busy: Mapping[str, float], width: int = 80
) -> RenderableType:
    """The screen for one look, `width` columns wide.

    Args:
        document: see `swarm status --json`.
        rates: tokens a second, and `busy` shares of the time, by Worker name, where they are known.
    """
    parts: list[Text] = [Text(headline(document), style="bold")]
    for rig, workers in groupby(document.get("workers", ()), lambda worker: str(worker["rig"])):
        parts.append(Text(rig, style="bold"))
        for worker in workers:
            parts += _device(worker, rates, busy, max(LEAST_BAR, min(BAR, width - BESIDE)))
    if document.get("workers"):
        parts.append(_legend())
    parts += _links(document)
    parts += expected(document)
    waiting = document.get("waiting")
    parts += [Text(line) for line in (f"the swarm {waiting}" if waiting else document.get("activity"),) if line]
    return Group(*parts)


def bar(memory: Mapping[str, Any], cells: int = BAR) -> Text:
    """What a Device holds, in proportion; each kind that is there has a cell at least where there is room for it."""
    total = max(1, int(memory["total_bytes"]))
    used = int(memory.get("kv_used_bytes", 0))
    sizes = {**memory, "kv_free_bytes": max(0, int(memory.get("kv_bytes", 0)) - used)}
    text, left = Text(), cells
    for kind, color in KINDS:
        size = int(sizes.get(kind, 0))
        number = min(left, max(1, round(cells * size / total)) if size else 0)
        text.append("█" * number, style=color)
        left -= number
    return text.append("░" * left, style="dim")


def _device(worker: Mapping[str, Any], rates: Mapping[str, float], busy: Mapping[str, float], cells: int) -> Iterator[Text]:
    memory, name = worker["memory"], str(worker["name"])
    total, free = int(memory["total_bytes"]), int(memory["free_bytes"])
    rate = rates.get(name, worker.get("tokens_per_s"))
    place = name.removeprefix(f"{worker['rig']}/")
    line = Text(f"  {place[:8]:8} ").append_text(bar(memory, cells)).append(f" {_short(total - free)} of {gib(total)}")
    line.append(f"  {100 * busy.get(name, 0.0):3.0f}%" if name in busy else "      ")
    yield line.append("" if rate is None else f"  {float(rate):.1f} tok/s")
    yield Text("           ").append_text(_facts(worker))


def _facts(worker: Mapping[str, Any]) -> Text:
    """The second line of a Device."""
    facts = [f"blocks {held}"] if (held := blocks_of(worker["blocks"])) else []
    facts += [f"experts {held}"] if (held := experts_of(worker["experts"])) else []
    sessions = int(worker["sessions"])
    facts += [f"{sessions} session{'' if sessions == 1 else 's'}"]
    facts += [f"{worker['temperature_c']:.0f} °C"] if worker.get("temperature_c") else []
    facts += [f"{worker['watts']:.0f} W"] if worker.get("watts") else []
    text = Text(" · ".join(facts), style="dim", overflow="ellipsis", no_wrap=True)
    if wrong := worker.get("out") or ("" if worker["alive"] else "does not answer"):
        return Text(f"{wrong} · ", style="red").append_text(text)
    if loading := worker.get("loading"):
        return Text(f"{'; '.join(loading)} · ", style="yellow").append_text(text)
    return text


def _legend() -> Text:
    text = Text("  ")
    for word, (_, color) in zip(LEGEND, KINDS, strict=True):
        text.append("█ ", style=color).append(f"{word}  ", style="dim")
    return text


def _links(document: Mapping[str, Any]) -> Iterator[Text]:
    for link in document.get("links") or ():
        a, b = link["between"]
        between = f"inside {a}" if a == b else f"{a} - {b}"
        if None in (link["rtt_ms"], link["gbit_s"]):
            yield Text(f"{between}: {link['why']}", style="red")
        else:
            yield Text(f"{between}: {link['rtt_ms']:.2f} ms, {link['gbit_s']:.2f} Gbit/s")


def _short(num_bytes: int) -> str:
    return gib(num_bytes).removesuffix(" GiB")
