"""One Worker as a process: started by its rig and driven over gRPC, or by itself from a Plan in a file."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from swarm.errors import SwarmError
from swarm.logs.file import LogFile
from swarm.plan import Plan
from swarm.wire import near
from swarm.wire.admission import Admission
from swarm.wire.credentials import Credentials
from swarm.wire.open_files import allow_many
from swarm.wire.v1 import weights_pb2 as pb
from swarm.wire.v1.key_pb2_grpc import add_KeyServiceServicer_to_server
from swarm.wire.v1.rig_pb2_grpc import add_RigServiceServicer_to_server
from swarm.wire.v1.stage_pb2_grpc import add_StageServiceServicer_to_server
from swarm.wire.v1.weights_pb2_grpc import add_WeightsServiceServicer_to_server
from swarm.wire.v1.worker_pb2_grpc import add_WorkerServiceServicer_to_server
from swarm.worker import near_streams
from swarm.worker.control_servicer import ControlServicer
from swarm.worker.rekeying import Rekeying
from swarm.worker.rig_servicer import RigServicer
from swarm.worker.stage_servicer import StageServicer, near_calls
from swarm.worker.weights_servicer import WeightsServicer
from swarm.worker.worker import Worker

GRACE_S = 1.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """What a Worker process is started with."""

    name: str
    listen: str
    """host:port; port 0 takes any."""
    device: str
    threads: int
    memory_bytes: int
    credentials: Credentials
    cache: Path | None = None
    """The folder of quantized weights; None: nothing is cached."""
    logs: Path | None = None
    """The folder of this rig's logs; None: it keeps none."""


@dataclass(frozen=True)
class Source:
    """Where a Worker without a Coordinator takes weights from, beside the model's own files here.

    Args:
        cache: the folder of quantized weights; None: nothing is cached.
        peers: addresses (host:port) of Workers on other Rigs, best first.
    """

    cache: Path | None = None
    peers: tuple[str, ...] = ()


@asynccontextmanager
async def serving(settings: WorkerSettings, say: Callable[[str], None] | None = None) -> AsyncIterator[tuple[Worker, str]]:
    """A Worker that serves, and its address. Raises PortInUse.

    Args:
        say: takes a line for its owner, see `Rekeying`.
    """
    s = settings
    worker = Worker(s.name, s.device, s.threads, s.memory_bytes, s.credentials, s.cache)
    admission = Admission()
    server = settings.credentials.server(admission)
    try:
        port = settings.credentials.bind(server, settings.listen)
        if (beside := near.address_for(s.name, port)) is not None:
            s.credentials.bind(server, beside)
        address = f"{settings.listen.rsplit(':', 1)[0]}:{port}"
        add_StageServiceServicer_to_server(StageServicer(worker), server)
        add_WorkerServiceServicer_to_server(ControlServicer(worker, address, settings.credentials), server)
        add_WeightsServiceServicer_to_server(WeightsServicer(worker), server)
        add_KeyServiceServicer_to_server(Rekeying(admission, s.credentials, worker, say), server)
        add_RigServiceServicer_to_server(RigServicer(s.logs, s.cache), server)
        async with near_streams.listening(near.streams_for(s.name, port), near_calls(worker)):
            await server.start()
            try:
                yield worker, address
            finally:
                await server.stop(GRACE_S)  # what is under way on either kind of stream has that long
    finally:
        await server.stop(GRACE_S)
        await worker.close()


async def serve_until_stopped(settings: WorkerSettings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM, SIGINT or the end of standard input, whose other end the owner holds."""
    allow_many()
    stop = _stop_on_signals()
    _stop_on_end_of_input(stop)
    async with serving(settings, _say) as (_, address):
        ready(address)
        await stop.wait()


async def serve_plan(
    plan: Plan,
    name: str,
    credentials: Credentials,
    source: Source,
    serves: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> None:
    """Serve one Worker of a Plan in a file until SIGTERM or SIGINT.

    Args:
        source: where weights come from beside the model's own files.
        serves: told the address once the model is loaded.
        progress: told how many bytes of how many are loaded.

    Raises:
        PlacementError: the Plan has no Worker of that name.
        ModelError, PortInUse, DoesNotFit.
    """
    spec = plan.worker(name)
    allow_many()
    stop = _stop_on_signals()
    settings = WorkerSettings(name, spec.address, spec.device, spec.threads, spec.memory_bytes, credentials, source.cache)
    async with serving(settings) as (worker, address):
        stopped = asyncio.ensure_future(stop.wait())
        loading = asyncio.ensure_future(_load(worker, plan, source.peers, progress))
        await asyncio.wait({stopped, loading}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return
        loading.result()
        serves(address)
        await stopped


async def _load(worker: Worker, plan: Plan, peers: Sequence[str], progress: Callable[[int, int], None]) -> None:
    async for loaded, total in worker.prepare(plan, worker.name, peers=[pb.Peer(address=address) for address in peers]):
        progress(loaded, total)
    worker.commit(plan.epoch)


def _stop_on_signals() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _stop_on_end_of_input(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait, name="owner", daemon=True).start()


def warm_up() -> None:
    """Do before it matters what is done once a process, beside the imports: torch's first product. No card is touched."""
    torch.ones(8, 8) @ torch.ones(8, 8)


def run_owned(settings: WorkerSettings) -> int:
    """A Worker process that its rig owns; the exit code."""
    rig, _, device = settings.name.rpartition("/")
    with LogFile(settings.logs, rig, f"worker {device}") if settings.logs else nullcontext():
        try:
            asyncio.run(serve_until_stopped(settings, _ready))
        except SwarmError as error:
            _LOG.error("%s", error)
            print(f"swarm: {error}", file=sys.stderr)
            return error.exit_code
        except BaseException:
            _LOG.exception("%s ends", settings.name)
            raise
        _LOG.info("%s ends", settings.name)
    return 0


def _ready(address: str) -> None:
    _LOG.info("serves at %s, process %d", address, os.getpid())
    _say(f"ready {address}")


def _say(line: str) -> None:
    """To the owner alone: standard output is a pipe to it."""
    print(line, flush=True)
