"""`swarm status`: what the swarm holds, where, and how busy it is.

What the swarm holds, where, and how busy it is; how fast each device was measured to read (GB/s) and to multiply (TFLOP/s), and
whether it serves slower than that now; the links between rigs, measured when a rig joins and again while nobody talks; what the
Plan is expected to do beside what is measured now.

`--watch` is a live screen: each device as a bar of what it holds (weights, caches in use, caches free, workspace), how much of the
last second it computed, its tokens/s, its temperature and watts where NVIDIA's driver tells them; links; prediction beside
measurement.

Where the Coordinator does not answer, it shows what those Workers say that this machine last heard of, and one sentence on standard
error: what is gone, what still works, what to do. The exit code is 1 then, and `--json` has the sentence under `silence`.

With `--json`: `{"epoch", "model", "dtype", "kv", "workers": [{"name", "rig", "device", "pid", "address", "blocks": [first, end],
"experts": {"block": [ids]}, "memory": {"total_bytes", "weights_bytes", "kv_bytes", "free_bytes"}, "sessions", "alive", "out",
"measured": {"bandwidth_gb_s", "tflops", "start_us", "slowed", "dtypes", "at"}}], "links": [{"between": [rig, rig], "rtt_ms",
"gbit_s", "why", "at"}], "objective", "standby", "predicted": {"ttft_s", "tokens_per_s", "total_tokens_per_s"}, "bottleneck",
"standbys": [{"worker", "blocks"}], "sources": [lines], "fetching": [{"rig", "files", "folder", "free_bytes", "done_bytes",
"total_bytes", "bytes_per_s"}]}` and more.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import grpc
import grpc.aio
import typer
from rich.console import Group, RenderableType
from rich.live import Live

from swarm.cli import options, output
from swarm.cli.headless import headless, worker_status
from swarm.cli.rigs_noted import note_rigs
from swarm.cli.status_table import Rates, picture
from swarm.cli.watch_picture import BusyShares, watch_picture
from swarm.errors import Expired, NoSwarm, SwarmError, UsageError
from swarm.plan import Plan
from swarm.wire.overview import overview
from swarm.wire.status import from_rpc
from swarm.wire.status_document import read_status
from swarm.wire.v1 import swarm_pb2
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

ANSWER_S = 5.0
"""How long a swarm or a Worker may take to say how it is."""
WATCH_S = 1.0


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second until Ctrl-C.")] = False,
    as_json: options.Json = False,
    swarm: options.Swarm = None,
    plan_file: options.PlanFile = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """What the swarm holds, where, and how busy it is: rigs, devices, Stages, ExpertShards, Sessions, memory, tokens/s."""
    if watch and as_json:
        raise UsageError("--watch repeats and --json is one document: give one of them")
    target = options.target(swarm, key, key_file, plan_file)
    if watch:
        asyncio.run(_watch(target))
        return
    document = asyncio.run(ask_anybody(target))
    if as_json:
        output.print_json(document)
    else:
        output.stdout().print(picture(document))
    if silence := document.get("silence"):
        raise NoSwarm(silence)


async def ask(target: options.Target) -> dict[str, Any]:
    """The status document of a Target. Raises NoSwarm and WrongKey."""
    if target.plan_file is not None:
        return await _ask_workers(options.read_plan(target.plan_file), target)
    async with target.channel() as channel:
        stub = SwarmServiceStub(channel)
        try:
            reply = await stub.GetStatus(swarm_pb2.StatusRequest(), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, target.what) from None
    target.answered()
    return read_status(reply.json, target.what)


async def ask_anybody(target: options.Target) -> dict[str, Any]:
    """The same, from the Workers where the Coordinator does not answer (see `headless`)."""
    try:
        document = await ask(target)
    except (NoSwarm, Expired) as silence:
        if not target.address:
            raise
        return await headless(target, silence)
    if target.address:
        note_rigs(target.address, document)
    return document


async def _ask_workers(plan: Plan, target: options.Target) -> dict[str, Any]:
    replies = await asyncio.gather(*(worker_status(spec.name, spec.address, target) for spec in plan.workers))
    return overview(plan, {spec.name: reply for spec, reply in zip(plan.workers, replies, strict=True) if reply is not None})


async def _watch(target: options.Target) -> None:
    """Show the picture again and again; the first time fails where there is no swarm, later ones wait for it."""
    rates, busy = Rates(), BusyShares()
    document = await ask_anybody(target)
    console = output.stdout()
    with Live(_watched(document, rates, busy, console.width), console=console, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                document = await ask_anybody(target)
            except SwarmError as error:
                live.update(str(error), refresh=True)
                continue
            live.update(_watched(document, rates, busy, console.width), refresh=True)


def _watched(document: dict[str, Any], rates: Rates, busy: BusyShares, width: int) -> RenderableType:
    live = watch_picture(document, rates.of(document, time.monotonic()), busy.of(document), width)
    return Group(live, document.get("silence", ""))
