"""Unequal swarms on this machine: Workers with fewer threads, a share of a CPU, a longer way or a thinner link."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.limits import HOSTS, quota, relayed
from benchmarks.processes import START_S, free_ports
from swarm.plan import ExpertShard, Model, Plan, Route, Stage, WorkerSpec
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub

CONTEXT = 96
"""Positions that a Session uses, and that the prediction reads KV for."""
DELAY_S = 0.005


@dataclass(frozen=True)
class Shape:
    """One swarm.

    Args:
        threads: of each Worker, w0, w1, ...
        routes: the end of each Stage, a Route a tuple; Workers take them in order.
        shares: of a CPU; a whole one where not given.
        shards: (Worker, Block, experts).
        delay_s: what the way between Workers takes longer, each way.
        hosts: the first Worker and the client on one, the others on the other end of a shaped link.
    """

    name: str
    threads: tuple[int, ...]
    routes: tuple[tuple[int, ...], ...]
    shares: tuple[float, ...] = ()
    shards: tuple[tuple[str, int, tuple[int, ...]], ...] = ()
    delay_s: float = 0.0
    hosts: bool = False
    sessions: int = 4
    context: int = CONTEXT

    @property
    def in_flight(self) -> int:
        """Micro-batches under way on each Route: one a Stage, and no more than there are Sessions."""
        return min(self.sessions, max(len(ends) for ends in self.routes))

    def plan(self, model: Model) -> Plan:
        """Its Plan, at addresses that are free now."""
        ports = free_ports(len(self.threads))
        hosts = list(HOSTS.values()) if self.hosts else ["127.0.0.1"]
        workers = tuple(
            WorkerSpec(f"w{i}", f"r{i}", "cpu", f"{hosts[min(i, len(hosts) - 1)]}:{port}", 1 << 40, threads=threads)
            for i, (threads, port) in enumerate(zip(self.threads, ports, strict=True))
        )
        names = iter(w.name for w in workers)
        routes = tuple(
            Route(tuple(Stage(next(names), first, end) for first, end in zip((0, *ends[:-1]), ends, strict=True)))
            for ends in self.routes
        )
        shards = tuple(ExpertShard(*shard) for shard in self.shards)
        return Plan(1, model, workers, routes, shards, sessions=self.sessions, context=self.context, in_flight=self.in_flight)


@dataclass
class Running:
    """A swarm that serves.

    Args:
        plan: as clients know it.
        dialled: (Worker, other Worker) → where the first one dials the second.
    """

    plan: Plan
    path: Path
    dialled: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def address(self, caller: str, other: str) -> str:
        return self.dialled.get((caller, other), self.plan.worker(other).address)


@asynccontextmanager
async def running(shape: Shape, model: Model) -> AsyncIterator[Running]:
    """Start a swarm's Workers, and limit them once they serve. All end with the block."""
    plan = shape.plan(model)
    async with _detours(plan, shape.delay_s) as dialled:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as limits:
            processes = []
            try:
                for worker in plan.workers:
                    path = Path(folder) / f"{worker.name}.json"
                    path.write_text(_seen_by(worker.name, plan, dialled).to_json())
                    inside = ("ip", "netns", "exec", list(HOSTS)[1]) if shape.hosts and worker is not plan.workers[0] else ()
                    processes.append(await _start(inside, path, worker.name))
                for worker in plan.workers:
                    await asyncio.wait_for(_serving(worker.address, plan.epoch), START_S)
                for worker, process, share in zip(plan.workers, processes, shape.shares, strict=False):
                    limits.enter_context(quota(worker.name, process.pid, share))
                (Path(folder) / "plan.json").write_text(plan.to_json())
                yield Running(plan, Path(folder) / "plan.json", dialled)
            finally:
                for process in processes:
                    process.terminate()
                await asyncio.gather(*(process.wait() for process in processes))


@asynccontextmanager
async def _detours(plan: Plan, delay_s: float) -> AsyncIterator[dict[tuple[str, str], str]]:
    """A relay before every Worker but the first, which the Workers dial and the client does not."""
    if not delay_s:
        yield {}
        return
    first, second = plan.workers
    async with relayed(second.address, delay_s) as detour:
        yield {(first.name, second.name): detour}


def _seen_by(name: str, plan: Plan, dialled: Mapping[tuple[str, str], str]) -> Plan:
    return replace(plan, workers=tuple(replace(w, address=dialled.get((name, w.name), w.address)) for w in plan.workers))


async def _start(inside: Sequence[str], path: Path, name: str) -> asyncio.subprocess.Process:
    command = [*inside, sys.executable, "-m", "swarm.cli.main", "worker", "--plan-file", str(path), "--name", name]
    return await asyncio.create_subprocess_exec(
        *command, env=dict(os.environ), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )


async def _serving(address: str, epoch: int) -> None:
    async with Credentials().channel(address) as channel:
        while True:
            status = await WorkerServiceStub(channel).Status(pb.WorkerStatusRequest(), wait_for_ready=True)
            if status.epoch == epoch:
                return
            await asyncio.sleep(0.1)  # between two polls
