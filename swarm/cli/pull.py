"""`swarm pull`: fetch a model from the Hub without loading it.

Fetch a model from the Hub without loading it; no swarm is needed. `MODEL` is `owner/name`, `owner/name@revision`, or for GGUF
`owner/name:Q4_K_M`. Says before the first byte how much there is to fetch, where to, and how much room is there; what is there,
or was begun, is not fetched again. [Where weights come from](weights.md).

With `--json`: `{"model", "folder", "files": [{"name", "bytes"}], "bytes"}`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from swarm.cli import options, output, settings
from swarm.errors import gib
from swarm.weights import hub
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.source import hub_id, local
from swarm.weights.tally import Tally

LOOK_S = 0.2


def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A Hub id, with a kind for GGUF: owner/name:Q4_K_M.")],
    cache: options.Cache = None,
    json: options.Json = False,
) -> None:
    """Fetch a model from the Hub without loading it. What is there, or begun, is not fetched again."""
    folder = settings.hub_cache(cache)
    where = local(model) or _fetched(model, folder)
    sizes = {header.file.path: header.file.size() for header in Checkpoint.open(where).headers}
    if json:
        files = [{"name": path.name, "bytes": size} for path, size in sizes.items()]
        output.print_json({"model": model, "folder": str(where), "files": files, "bytes": sum(sizes.values())})
    else:
        output.stdout().print(f"{where}  ({len(sizes)} files, {gib(sum(sizes.values()))})", soft_wrap=True)


def _fetched(model: str, cache: Path | None) -> Path:
    """Where a model of the Hub is, once all of it is there. Raises ModelError."""
    wanted = hub_id(model)
    if found := hub.cached(wanted, cache):
        return found
    snapshot = hub.small(wanted, cache)
    wanted = wanted.at(snapshot.name)
    names = hub.weight_names(wanted, snapshot)
    folder = hub.cache_folder(cache)
    missing = sum(blob.size - blob.here for blob in hub.blobs(wanted, names, cache))
    room = f"{gib(hub.free_bytes(folder))} free"
    output.stderr().print(f"{model}: {gib(missing)} from the Hub into {folder} ({room})", soft_wrap=True)
    with _shown(model) as tally:
        hub.fetch(wanted, names, cache, tally)
    return hub.opened_by(snapshot, names)


@contextmanager
def _shown(model: str) -> Iterator[Tally]:
    """A tally whose progress a terminal shows; Ctrl-C stops what counts into it."""
    tally, over, console = Tally(), threading.Event(), output.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar, ThreadPoolExecutor(1) as pool:
        task = bar.add_task(model, total=None)

        def look() -> None:
            while not over.wait(LOOK_S):
                now = tally.now
                bar.update(task, completed=now.done, total=now.total or None)

        pool.submit(look)
        try:
            yield tally
        finally:
            tally.stopped.set()
            over.set()
