"""`swarm models`: which models are here, on which rig, how big, in which dtype.

What the swarm holds now, and what lies on the disks of its rigs: models of the Hub as they were fetched, and weights as they were
quantized for a device (see `swarm cache`). Where no swarm is known, or it does not answer, it tells of this machine. A model of
which files are missing is marked `in part`: loading it fetches the rest.

With `--json`: `{"holds": {"model", "dtype", "waiting"}, "models": [{"rig", "model", "kind", "dtype", "bytes", "last_used",
"whole"}], "free_bytes": {rig: bytes}, "silent": [rigs]}`; `holds` is null where no swarm was asked, `last_used` in seconds since
1970, `kind` is `hub` or `quantized`.
"""

from __future__ import annotations

import asyncio
import platform
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc.aio
from rich.table import Table

from swarm.cli import options, output, settings
from swarm.cli.rigs_noted import RigAt, rigs_of
from swarm.cli.status import ask
from swarm.errors import Expired, Lost, NoSwarm, WrongKey, gib
from swarm.weights.stored import free_bytes, stored
from swarm.wire.status import from_rpc
from swarm.wire.v1 import rig_pb2 as pb
from swarm.wire.v1.rig_pb2_grpc import RigServiceStub

ANSWER_S = 30.0
"""How long a rig may take to look through its disk."""
KINDS = {"hub": "from the Hub", "quantized": "quantized"}


@dataclass
class _Found:
    """What was found, and where."""

    holds: dict[str, str] | None = None
    models: list[dict[str, Any]] = field(default_factory=list)
    free_bytes: dict[str, int] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)


def models(
    cache: options.Cache = None,
    as_json: options.Json = False,
    swarm: options.Swarm = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Which models are here: what the swarm holds now, and what lies on the disks of its rigs, or of this machine."""
    try:
        found = asyncio.run(_of_the_swarm(options.target(swarm, key, key_file)))
    except (NoSwarm, WrongKey, Expired) as error:
        if swarm:
            raise
        output.stderr().print(f"{error}; this is what lies on this machine", soft_wrap=True)
        found = _here(cache)
    if as_json:
        output.print_json(asdict(found))
    else:
        _show(found)


async def look(target: options.Target | None) -> dict[str, Any]:
    """The document of `swarm models --json`. Raises SwarmError where a swarm is asked and refuses."""
    return asdict(await _of_the_swarm(target) if target else _here(None))


def _here(cache: Path | None) -> _Found:
    hub, folder = settings.hub_cache(cache), settings.cache_dir(cache)
    name = platform.node().partition(".")[0] or "this machine"
    lying = [
        {"rig": name, "model": s.model, "kind": s.kind, "dtype": s.dtype, "bytes": s.num_bytes}
        | {"last_used": s.last_used, "whole": s.whole}
        for s in stored(folder, hub)
    ]
    return _Found(None, lying, {name: free_bytes(folder)})


async def _of_the_swarm(target: options.Target) -> _Found:
    document = await ask(target)
    found = _Found({name: str(document.get(name, "")) for name in ("model", "dtype", "waiting")})
    rigs = rigs_of(document)
    for rig, reply in zip(rigs, await asyncio.gather(*(_ask(target, rig) for rig in rigs)), strict=True):
        if reply is None:
            found.silent.append(rig.name)
            continue
        found.free_bytes[rig.name] = reply.free_bytes
        found.models += [
            {"rig": rig.name, "model": s.model, "kind": s.kind, "dtype": s.dtype, "bytes": s.bytes}
            | {"last_used": s.last_used, "whole": s.whole}
            for s in reply.models
        ]
    return found


async def _ask(target: options.Target, rig: RigAt) -> pb.ModelsReply | None:
    """What lies on a rig's disk; None where none of its Workers answers. Raises WrongKey for an invitation."""
    for address in rig.workers:
        async with target.channel(address) as channel:
            try:
                reply: pb.ModelsReply = await RigServiceStub(channel).Models(pb.ModelsRequest(), timeout=ANSWER_S)
                return reply
            except grpc.aio.AioRpcError as error:
                meant = from_rpc(error, f"{rig.name} at {address}")
                if not isinstance(meant, NoSwarm | Expired | Lost):
                    raise meant from None
    return None


def _show(found: _Found) -> None:
    console = output.stdout()
    if found.holds:
        held = f"holds {found.holds['model']} in {found.holds['dtype']}"
        console.print(f"the swarm {found.holds['waiting'] or held}", soft_wrap=True)
    if found.models:
        console.print(_table(found.models))
    for rig, free in found.free_bytes.items():
        size = sum(m["bytes"] for m in found.models if m["rig"] == rig)
        console.print(f"{rig}: {gib(size)} of models, {gib(free)} free")
    for rig in found.silent:
        output.stderr().print(f"{rig} does not show its models, none of its workers answers: run `swarm models` on {rig}")


def _table(models: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("model", "rig", "what", "dtype", "size", "last used"):
        table.add_column(name, justify="right" if name == "size" else "left", no_wrap=True)
    for m in sorted(models, key=lambda m: (m["model"].rpartition("/")[2], m["rig"], m["kind"])):
        used = datetime.fromtimestamp(m["last_used"]).astimezone().strftime("%Y-%m-%d")
        what = KINDS.get(m["kind"], m["kind"]) + ("" if m["whole"] else ", in part")
        table.add_row(m["model"], m["rig"], what, m["dtype"], gib(m["bytes"]), used)
    return table
