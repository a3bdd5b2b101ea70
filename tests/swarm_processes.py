"""Swarms for tests: Workers in this loop, or in processes of their own, over real sockets either way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc

from swarm.plan import Model, Plan
from swarm.weights.describe import assets
from swarm.weights.source import resolve
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub
from swarm.worker.process import WorkerSettings, serving
from swarm.worker.worker import Worker

START_S = 150.0
OPEN = Credentials()


@asynccontextmanager
async def workers_here(
    plan: Plan, credentials: Credentials = OPEN, commit: bool = True, only: Collection[str] = ()
) -> AsyncIterator[dict[str, Worker]]:
    """The Workers of a Plan in this loop, each at its address, prepared and committed."""
    workers: dict[str, Worker] = {}
    stop = asyncio.Event()

    async def serve(settings: WorkerSettings) -> None:
        async with serving(settings) as (workers[settings.name], _):
            await stop.wait()

    settings = [
        WorkerSettings(w.name, w.address, w.device, w.threads, w.memory_bytes, credentials)
        for w in plan.workers
        if not only or w.name in only
    ]
    tasks = [asyncio.create_task(serve(each)) for each in settings]
    try:
        await until(lambda: len(workers) == len(tasks) or any(t.done() for t in tasks), "the workers do not start")
        if commit:
            await prepare(workers, plan)
            for worker in workers.values():
                worker.commit(plan.epoch)
        yield workers
    finally:
        stop.set()
        await asyncio.gather(*tasks)  # at once: each gives its streams a moment to end


class InMemory:
    """The in-memory twin of a PlanSource: the test says which Plan is in force."""

    patience_s = 60.0
    waiting = ""

    def __init__(self, plan: Plan) -> None:
        self.current = plan
        self.reported: list[tuple[int, str, str]] = []
        self._changed = asyncio.Condition()

    async def switch(self, plan: Plan) -> None:
        async with self._changed:
            self.current = plan
            self._changed.notify_all()

    async def plan(self) -> Plan:
        return self.current

    async def newer_than(self, epoch: int) -> Plan:
        async with self._changed:
            await self._changed.wait_for(lambda: self.current.epoch > epoch)
            return self.current

    async def assets(self, model: Model) -> dict[str, bytes]:
        return assets(resolve(model.source))

    async def report(self, epoch: int, worker: str, message: str) -> None:
        self.reported.append((epoch, worker, message))

    async def close(self) -> None:
        return None


async def prepare(workers: Mapping[str, Worker], plan: Plan) -> None:
    """Load what each Worker lacks for a Plan."""
    for name, worker in workers.items():
        async for _ in worker.prepare(plan, name):
            pass


class Processes:
    """The Workers of a Plan file, each in a process of its own."""

    def __init__(self, plan_file: Path) -> None:
        self.plan_file = plan_file
        self.plan = Plan.from_json(plan_file.read_text())
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """Start Workers, all by default, without waiting for them."""
        for name in names or [w.name for w in self.plan.workers]:
            command = [sys.executable, "-m", "swarm.cli.main", "worker", "--plan-file", str(self.plan_file), "--name", name]
            self._running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self, *names: str) -> None:
        """Until they serve."""
        for name in names or list(self._running):
            process = self._running[name]
            wait_until_serving(self.plan.worker(name).address, lambda process=process: process.poll() is None)  # type: ignore[misc]

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def signal(self, name: str, number: signal.Signals) -> None:
        self._running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """Without warning."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()


@contextmanager
def processes(plan: Plan, folder: Path) -> Iterator[Processes]:
    """Worker processes of a Plan, all of them serving; ended at the end."""
    plan_file = folder / "plan.json"
    plan_file.write_text(plan.to_json())
    swarm = Processes(plan_file)
    try:
        swarm.start()
        swarm.wait()
        yield swarm
    finally:
        swarm.stop()


def wait_until_serving(address: str, alive: Callable[[], bool]) -> None:
    """Poll a Worker's Status until it serves an epoch. AssertionError when its process ends or takes too long."""
    deadline = time.monotonic() + START_S
    while True:
        assert alive(), f"the worker at {address} ended"
        assert time.monotonic() < deadline, f"the worker at {address} does not serve after {START_S} s"
        if (status := status_at(address)) is not None and status.epoch:
            return
        time.sleep(0.05)  # between two polls


def status_at(address: str) -> pb.WorkerStatus | None:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            status: pb.WorkerStatus = WorkerServiceStub(channel).Status(pb.WorkerStatusRequest(), timeout=30)
        except grpc.RpcError:
            return None
        return status


async def until(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll for something with a deadline."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)
