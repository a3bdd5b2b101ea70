"""`swarm cache`: what this rig's disk keeps of quantized weights, and how to be rid of it.

What this rig's disk keeps of quantized weights, so that the next start need not quantize again: a line for each model, dtype and
kind of device, with its size, when it was last used, and its folder. `swarm cache prune` deletes: of one model (its name, or six
or more digits of its id), of all, or what was not used for a while. It works whether a swarm runs or not: a Worker that has a
deleted file in its memory keeps it until it ends. [What is kept, and when it is trusted](weights.md#the-cache).

`--cache-limit SIZE` on `up`, `join` and `worker` says how much it may take; it is kept in the folder, until `--cache-limit none`.
Where more would be needed, the model that was not used for longest goes, but none that a Worker uses. Files of the Hub are not in
it and are never deleted by swarm: `hf cache` does that.

With `--json`: one JSON document: `folder`, `limit_bytes` (null: no limit) and `models`; with `prune`, what was deleted.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from swarm.cli import options, output, settings
from swarm.errors import UsageError, gib
from swarm.weights.cache.folder import Kept, kept, prune
from swarm.weights.cache.limit import read_limit


class Action(StrEnum):
    """What to do with the cache."""

    LIST = "list"
    PRUNE = "prune"


def cache(
    action: Annotated[Action, typer.Argument(help="See what there is, or delete some of it.")] = Action.LIST,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="Of this model only: its name, or how its id begins.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="With prune: all models.")] = False,
    older_than: Annotated[str, typer.Option("--older-than", metavar="AGE", help="With prune: unused for 12h, 30d, 4w.")] = "",
    folder: options.Cache = None,
    as_json: options.Json = False,
) -> None:
    """List or prune the quantized weights that this rig keeps on its disk, with or without a swarm running."""
    where = settings.cache_dir(folder)
    if action is Action.LIST:
        if everything or older_than:
            raise UsageError("--all and --older-than say what to delete: write `swarm cache prune`")
        _show(where, [k for k in kept(where) if _is_of(k, model)], as_json, "")
        return
    if not (model or everything or older_than):
        raise UsageError("say what to delete: `swarm cache prune MODEL`, `--older-than 30d` or `--all`")
    if model and everything:
        raise UsageError(f"{model} and --all say two things: give one of them")
    before = time.time() - (options.seconds("--older-than", older_than) if older_than else 0)
    gone = prune(where, lambda k: _is_of(k, model) and k.last_used <= before)
    if model and not gone and not any(_is_of(k, model) for k in kept(where)):
        raise UsageError(f"{where} has nothing of {model}: see `swarm cache`")
    _show(where, gone, as_json, "deleted ")


def _is_of(found: Kept, model: str) -> bool:
    """Whether somebody who says `model` means this; who says nothing means all."""
    return (
        not model or found.model == model.rstrip("/").rsplit("/", 1)[-1] or (len(model) >= 6 and found.model_id.startswith(model))
    )


def _show(where: Path, found: list[Kept], as_json: bool, done: str) -> None:
    if as_json:
        models = [_document(k) for k in found]
        output.print_json({"folder": str(where), "limit_bytes": read_limit(where) or None, "models": models})
        return
    console = output.stdout()
    if found:
        console.print(_table(found))
    total = sum(k.num_bytes for k in found)
    console.print(f"{done}{gib(total)} in {where}" if found else f"nothing {done or 'is cached '}in {where}")
    if limit := read_limit(where):
        console.print(f"limited to {gib(limit)}")


def _table(found: list[Kept]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("model", "dtype", "for", "parts", "size", "last used", "in"):
        justify: Literal["left", "right"] = "right" if name in ("parts", "size") else "left"
        table.add_column(name, justify=justify, no_wrap=name not in ("model", "dtype", "in"), overflow="fold")
    for k in found:
        used = datetime.fromtimestamp(k.last_used).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(k.model, k.dtype, k.layout, str(k.parts), gib(k.num_bytes), used, str(k.path))
    return table


def _document(found: Kept) -> dict[str, Any]:
    used = datetime.fromtimestamp(found.last_used, UTC).isoformat(timespec="seconds")
    return asdict(found) | {"last_used": used, "path": str(found.path)}
