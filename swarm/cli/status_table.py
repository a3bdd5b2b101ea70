"""The status document for people: one line a Worker, with what it holds and how full and busy it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from swarm.cli.status_measured import columns, measured
from swarm.errors import gib


class Rates:
    """Tokens a second of each Worker between two looks at it."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}

    def of(self, document: Mapping[str, Any], now_s: float) -> dict[str, float]:
        """By Worker name; a Worker seen for the first time, or started anew, is not in it."""
        rates = {}
        for worker in document.get("workers", ()):
            name, tokens = worker["name"], int(worker.get("tokens", 0))
            before_s, before = self._seen.get(name, (now_s, tokens))
            if now_s > before_s and tokens >= before:
                rates[name] = (tokens - before) / (now_s - before_s)
            self._seen[name] = (now_s, tokens)
        return rates


def picture(document: Mapping[str, Any], rates: Mapping[str, float] | None = None) -> RenderableType:
    """What `swarm status` shows of a document, as `swarm.wire.overview` and the Coordinator write it.

    Args:
        document: see `swarm status --json`.
        rates: tokens a second by Worker name, where they are known.
    """
    parts: list[RenderableType] = [Text(headline(document), style="bold")]
    if rigs := document.get("rigs"):
        parts.append(_rigs(rigs, {coming["rig"]: coming for coming in document.get("fetching", ())}))
    if workers := document.get("workers"):
        parts.append(_workers(workers, rates or {}))
    parts += measured(document)
    waiting = document.get("waiting")
    parts += [
        Text(line) for line in (f"the swarm {waiting}" if waiting else document.get("activity"), *document.get("notes", ())) if line
    ]
    return Group(*parts)


def headline(document: Mapping[str, Any]) -> str:
    """The model, and how fast it answers."""
    if not document.get("model"):
        return "no model is loaded"
    kv = document.get("kv", "full")
    facts = [
        document["model"],
        document.get("dtype"),
        "" if kv == "full" else f"KV in {kv}",
        f"epoch {epoch}" if (epoch := document.get("epoch", 0)) else "no plan",
    ]
    if rate := document.get("tokens_per_s"):
        facts.append(f"{rate:.1f} tok/s")
    return " · ".join(str(fact) for fact in facts if fact)


def _rigs(rigs: Sequence[Mapping[str, Any]], fetching: Mapping[str, Mapping[str, Any]]) -> Table:
    """With how far each is that fetches from the Hub."""
    table = columns("rig", "devices", "versions", "")
    for rig in rigs:
        versions = ", ".join(f"{k} {v}" for k, v in dict(rig.get("versions") or {}).items() if v)
        devices = ", ".join(map(str, rig.get("devices", ())))
        name = str(rig.get("name", ""))
        state = _fetching(fetching[name]) if name in fetching else "is leaving" if rig.get("leaving") else ""
        table.add_row(name, devices, versions, state)
    return table


def _fetching(coming: Mapping[str, Any]) -> str:
    done, total, rate = (float(coming[key]) for key in ("done_bytes", "total_bytes", "bytes_per_s"))
    return f"fetches {len(coming['files'])} files: {gib(done)} of {gib(total)}, {rate / 1e6:.1f} MB/s"


def _workers(workers: Sequence[Mapping[str, Any]], rates: Mapping[str, float]) -> Table:
    """The experts of others stand last: few Workers hold any, and what everybody has shall fit a terminal's 80 columns."""
    others = any(worker["experts"] for worker in workers)
    table = columns(
        "worker", "blocks", "used", "free", "of", "sessions", "tok/s", "state", *(["experts of others"] if others else [])
    )
    table.padding = (0, 1, 0, 0)
    for worker in workers:
        memory = worker["memory"]
        total, free = int(memory["total_bytes"]), int(memory["free_bytes"])
        rate = rates.get(worker["name"], worker.get("tokens_per_s"))
        table.add_row(
            str(worker["name"]),
            blocks_of(worker["blocks"]),
            gib(total - free),
            gib(free),
            gib(total),
            str(worker["sessions"]),
            "" if rate is None else f"{rate:.1f}",
            _state(worker),
            *([experts_of(worker["experts"])] if others else []),
        )
    return table


def blocks_of(blocks: Sequence[int]) -> str:
    """A half-open range for people: `0-11`; empty where there are none."""
    first, end = blocks or (0, 0)
    return "" if end <= first else str(first) if end == first + 1 else f"{first}-{end - 1}"


def experts_of(experts: Mapping[str, Sequence[int]]) -> str:
    """Experts by Block for people: `3: 0,5`."""
    return "  ".join(f"{block}: {','.join(map(str, ids))}" for block, ids in experts.items())


def _state(worker: Mapping[str, Any]) -> Text:
    if why := worker.get("out"):
        return Text(str(why), style="red")
    if not worker["alive"]:
        return Text("does not answer", style="red")
    if loading := worker.get("loading"):
        return Text("; ".join(loading), style="yellow")
    up_s = float(worker.get("up_s") or 0)
    return Text(f"busy {100 * float(worker.get('busy_s', 0)) / up_s:.0f}%" if up_s else "serves", style="green")
