"""A running swarm measured twice: its Devices and links, as a Coordinator does it; and the tokens/s that it makes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

from benchmarks.processes import BareClient
from benchmarks.unequal import CONTEXT, Running
from cluster.planner.costs import KERNELS_CORE, KERNELS_EXPERT
from cluster.planner.hardware import Hardware, Link, Links, Measured, Speed
from swarm.client.session import Session
from swarm.plan import WorkerSpec
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub
from swarm.worker.echo import measure_link

CLIENT = "client"
PATIENCE_S = 20.0
PROMPT = 16
WARM_UP = 8
"""Tokens before those that are timed."""


@dataclass(frozen=True)
class Token:
    """One traversal: when it began on the machine's clock, seconds in all, and what each Stage says of its own."""

    began_s: float
    seconds: float
    stages: tuple[stage_pb2.StageTiming, ...]


@dataclass(frozen=True)
class Timed:
    """What a swarm did. Rates in tokens/s; statuses before and after all Sessions answered at once."""

    alone: float
    tokens: tuple[Token, ...]
    together: float
    together_s: float
    before: dict[str, pb.WorkerStatus]
    after: dict[str, pb.WorkerStatus]


async def hardware(swarm: Running) -> Hardware:
    """Every Device in turn, since all share this machine's CPUs; then every way that a token takes."""
    devices = [await _device(swarm, worker) for worker in swarm.plan.workers]
    known: dict[tuple[str, str], Link] = {}
    rigs = {w.name: w.rig for w in swarm.plan.workers}
    for caller, other in _ways(swarm):
        known[rigs[caller], rigs[other]] = await _link(swarm, caller, other)
    for route in swarm.plan.routes:
        for end in {route.entry, route.last}:
            reply = await measure_link(Credentials(), CLIENT, swarm.plan.worker(end).address, 0.6)
            known[CLIENT, rigs[end]] = Link(reply.rtt_s, reply.bytes_per_s)
    return Hardware(tuple(devices), Links(known), CLIENT)


def _ways(swarm: Running) -> set[tuple[str, str]]:
    hops = {(a.worker, b.worker) for route in swarm.plan.routes for a, b in pairwise(route.stages)}
    asked = {
        (stage.worker, shard.worker)
        for shard in swarm.plan.shards
        for stage in swarm.plan.routes[shard.route].stages
        if shard.block in stage.blocks
    }
    return hops | asked


async def _device(swarm: Running, worker: WorkerSpec) -> Measured:
    model = swarm.plan.model
    request = pb.MeasureRequest(
        dtype=model.dtype, hidden=model.config.hidden, ffn=model.config.ffn, kernels_core=KERNELS_CORE,
        kernels_expert=KERNELS_EXPERT, patience_s=PATIENCE_S,
    )  # fmt: skip
    async with Credentials().channel(worker.address) as channel:
        reply = await WorkerServiceStub(channel).Measure(request)
    products = tuple((p.rows, p.seconds_a_byte) for p in reply.products)
    return Measured(worker, Speed(products, reply.start_s, reply.software_s, several_start_s=reply.several_start_s))


async def _link(swarm: Running, caller: str, other: str) -> Link:
    here, there = swarm.plan.worker(caller), swarm.plan.worker(other)
    request = pb.LinkRequest(address=swarm.address(caller, other), beside=other if here.rig == there.rig else "")
    async with Credentials().channel(here.address) as channel:
        reply = await WorkerServiceStub(channel).MeasureLink(request)
    return Link(reply.rtt_s, reply.bytes_per_s, reply.calls_rtt_s)


async def rates(swarm: Running, new: int) -> Timed:
    """One Session alone, then as many as the Plan has at once."""
    client = BareClient(swarm.path)
    try:
        session = Session(client)
        await _begin(session, 0)
        tokens, began = [], time.monotonic()
        for number in range(new):
            tokens.append(await _token(session, number, 0))
        alone = new / (time.monotonic() - began)
        await session.close()
        sessions = [Session(client) for _ in range(swarm.plan.sessions)]
        await asyncio.gather(*(_begin(each, place) for place, each in enumerate(sessions, 1)))
        before, began = await _statuses(swarm), time.monotonic()
        together = await _together(sessions, new // 2 * len(sessions))
        together_s = time.monotonic() - began
        after = await _statuses(swarm)
        await asyncio.gather(*(each.close() for each in sessions))
    finally:
        await client.close()
    return Timed(alone, tuple(tokens), together / together_s, together_s, before, after)


async def _together(sessions: list[Session], wanted: int) -> int:
    """All Sessions at once, until they have so many tokens together: a slow one keeps nobody waiting. How many they have."""
    made = 0

    async def answer(session: Session, place: int) -> None:
        nonlocal made
        while made < wanted and len(session.tokens) < CONTEXT:
            await _token(session, len(session.tokens), place)
            made += 1

    await asyncio.gather(*(answer(each, place) for place, each in enumerate(sessions, 1)))
    return made


async def _begin(session: Session, place: int) -> None:
    """A prompt of its own, and tokens that are not timed."""
    await session.reserve(CONTEXT)
    session.replace([1 + (7919 * place + 101 * i) % 31000 for i in range(PROMPT)])
    await _traverse(session)
    await _answer(session, place + 100, WARM_UP)


async def _answer(session: Session, place: int, count: int) -> None:
    for number in range(count):
        await _token(session, number, place)


async def _token(session: Session, number: int, place: int) -> Token:
    session.append(1 + (7919 * place + 211 * number) % 31000)
    began = time.monotonic()
    await _traverse(session)
    return Token(began, time.monotonic() - began, session.timings)


async def _traverse(session: Session) -> None:
    end = len(session.tokens)
    await session.traverse(end - 1, lambda _, upto: stage_pb2.Ask(rows=1, k=2) if upto == end else stage_pb2.Ask())


async def _statuses(swarm: Running) -> dict[str, pb.WorkerStatus]:
    found = {}
    for worker in swarm.plan.workers:
        async with Credentials().channel(worker.address) as channel:
            found[worker.name] = await WorkerServiceStub(channel).Status(pb.WorkerStatusRequest())
    return found


def hop_s(token: Token) -> list[float]:
    """From the end of computing in each Stage to its beginning in the next; the machine's one clock."""
    return [b.began_s - a.began_s - a.compute_s for a, b in pairwise(token.stages)]


def entry_s(token: Token) -> float:
    """From the client's call to the beginning of computing."""
    return token.stages[0].began_s - token.began_s


def answer_s(token: Token) -> float:
    """From the end of computing to the client's own."""
    return token.began_s + token.seconds - token.stages[-1].began_s - token.stages[-1].compute_s


def mean_of(values: list[float]) -> float:
    return mean(values) if values else 0.0
