"""Weights from another Rig beside a plain socket: the same bytes of the same file, over loopback, from a process of its own.

Both have one reader, which takes `CHUNK_BYTES` at a time into the same memory, and a file that is in the system's memory already.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import weights_pb2 as pb
from swarm.wire.v1.weights_pb2_grpc import WeightsServiceStub
from swarm.worker.weights_peer import PeerFile, WeightsPeer

CHUNK_BYTES = 64 << 20
MOST_BYTES = 2 << 30
"""Read in one measurement."""


async def look(plan: Plan, name: str) -> None:
    """Have a Worker look at the model's files, as a swarm does before it loads: then it gives them to others."""
    async with Credentials().channel(plan.worker(name).address) as channel:
        await WeightsServiceStub(channel).Survey(pb.SurveyRequest(plan=plan.to_json(), name=name))


def from_a_rig(plan: Plan, name: str, path: Path) -> float:
    """Bytes/s of a weight file through a Worker that has it."""
    peer = WeightsPeer(Credentials(), plan.worker(name).address, "", lambda said: print(said, file=sys.stderr))
    try:
        return _rate(PeerFile(peer, plan.model.model_id, path.name).read_into, path)
    finally:
        peer.close()


def from_a_socket(path: Path) -> float:
    """Bytes/s of the same through a bare socket, which sends it straight from the system's memory."""
    context = get_context("spawn")
    ports: Queue[int] = context.Queue()
    sender = context.Process(target=_send, args=(path, ports), daemon=True)
    sender.start()
    with socket.create_connection(("127.0.0.1", ports.get(timeout=60))) as link:

        def take(_: int, buffer: memoryview) -> None:
            at = 0
            while at < len(buffer):
                at += link.recv_into(buffer[at:])

        rate = _rate(take, path)
    sender.terminate()
    sender.join()
    return rate


def _rate(read_into: Callable[[int, memoryview], None], path: Path) -> float:
    size = min(MOST_BYTES, path.stat().st_size) // CHUNK_BYTES * CHUNK_BYTES
    buffer = memoryview(bytearray(CHUNK_BYTES))
    started = time.perf_counter()
    for at in range(0, size, CHUNK_BYTES):
        read_into(at, buffer)
    return size / (time.perf_counter() - started)


def _send(path: Path, ports: Queue[int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, path.open("rb") as file:
        ports.put(server.getsockname()[1])
        link, _ = server.accept()
        with link, suppress(ConnectionError):  # the reader goes when it has enough
            at, size = 0, os.fstat(file.fileno()).st_size
            while at < size:
                at += os.sendfile(link.fileno(), file.fileno(), at, CHUNK_BYTES)
