"""Real Worker processes for a Plan, on this machine, without Ray; and Sessions on them without a tokenizer."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from swarm.client.pace import Pace
from swarm.client.plan_source import FilePlan, PlanSource
from swarm.client.routes import Routes
from swarm.plan import Model, Plan, Route, Stage, WorkerSpec
from swarm.weights.describe import describe
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub

START_S = 300.0
OPEN = Credentials()
"""Plain text."""


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def even_plan(
    model: Model, stages: int, threads: int, sessions: int, context: int, rigs: Sequence[str] = (), first: int = 0
) -> Plan:
    """Equal Stages on as many Workers of this machine, each with so many threads; as many micro-batches under way as Stages, which
    is what the planner chooses where the way between them is short.

    Args:
        rigs: what rig each is said to be on; by default one. Workers of one rig talk through a Unix socket.
        first: Blocks of the first of two Stages; 0: half of them.
    """
    num_blocks = model.config.num_blocks
    cuts = [0, first, num_blocks] if first else [i * num_blocks // stages for i in range(stages + 1)]
    workers = tuple(
        WorkerSpec(f"w{i}", rigs[i] if rigs else "here", "cpu", f"127.0.0.1:{port}", 1 << 40, threads=threads)
        for i, port in enumerate(free_ports(stages))
    )
    route = Route(tuple(Stage(f"w{i}", cuts[i], cuts[i + 1]) for i in range(stages)))
    return Plan(1, model, workers, (route,), sessions=sessions, context=context, in_flight=stages)


def level_cut(num_blocks: int, shares: Sequence[float]) -> int:
    """Blocks of the first of two Stages, so that the one that takes longer takes least: the second has the head as well.

    Args:
        shares: of the time that the Stages computed where both have half of the Blocks.
    """
    half = num_blocks // 2
    block, head = shares[0] / half, shares[1] - shares[0] * (num_blocks - half) / half
    return min(range(1, num_blocks), key=lambda first: max(first * block, (num_blocks - first) * block + head))


@asynccontextmanager
async def workers(plan: Plan, cache: Path | None = None, credentials: Credentials = OPEN) -> AsyncIterator[Path]:
    """The Plan's Workers, serving; yields the Plan's file. They end with the block, and so does what they cache by default."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(plan.to_json())
        command = [sys.executable, "-m", "swarm.cli.main", "worker", "--plan-file", str(path)]
        command += ["--cache", str(cache or folder), "--name"]
        quiet = asyncio.subprocess.DEVNULL
        env = {**os.environ, "SWARM_KEY": credentials.key} if credentials.key else dict(os.environ)
        running = [
            await asyncio.create_subprocess_exec(*command, w.name, env=env, stdout=quiet, stderr=quiet) for w in plan.workers
        ]
        try:
            for worker, process in zip(plan.workers, running, strict=True):
                await _started(worker, process, plan.epoch, credentials)
            yield path
        finally:
            for process in running:
                with suppress(ProcessLookupError):
                    process.terminate()
            await asyncio.gather(*(process.wait() for process in running))


async def _started(worker: WorkerSpec, process: asyncio.subprocess.Process, epoch: int, credentials: Credentials) -> None:
    """Wait until a Worker serves. Raises RuntimeError where it ended, or takes too long."""
    serves, ended = (asyncio.ensure_future(wait) for wait in (_serving(worker.address, epoch, credentials), process.wait()))
    await asyncio.wait((serves, ended), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
    done = serves.done()
    serves.cancel()
    ended.cancel()
    if not done:
        raise RuntimeError(f"the worker {worker.name} does not serve: start it by hand with `swarm worker` to see why")


async def _serving(address: str, epoch: int, credentials: Credentials) -> None:
    async with credentials.channel(address) as channel:
        while True:
            status = await WorkerServiceStub(channel).Status(pb.WorkerStatusRequest(), wait_for_ready=True)
            if status.epoch == epoch:
                return
            await asyncio.sleep(0.1)


class BareClient:
    """What a Session needs of a client, without a tokenizer."""

    def __init__(self, path: Path, credentials: Credentials = OPEN) -> None:
        self.source: PlanSource = FilePlan(path)
        self.plan = Plan.from_json(path.read_text(), str(path))
        self._credentials = credentials
        self.pace = Pace()
        self._routes: Routes | None = None
        self._afterwards: set[asyncio.Task[None]] = set()

    def notify(self, message: str) -> None:
        print(message, file=sys.stderr)

    async def routes(self) -> Routes:
        if self._routes is None:
            self._routes = Routes(await self.source.plan(), self._credentials, os.urandom(16))
        return self._routes

    def later(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        self._afterwards.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self._afterwards.discard)
        return task

    async def close(self) -> None:
        for task in self._afterwards:
            task.cancel()
        if self._routes is not None:
            await self._routes.close()


def described(folder: Path, dtype: str = "auto") -> Model:
    """The model in a folder."""
    return describe(str(folder), dtype)


def unseen(length: int) -> list[int]:
    """A prompt of random ids, so that no Stage holds the pages of another Session that began alike."""
    return [random.randrange(1, 31000) for _ in range(length)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
