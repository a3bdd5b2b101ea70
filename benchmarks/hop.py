"""The software cost of one Hop on loopback: from the end of one Stage's computing to the beginning of the next's.

    python -m benchmarks.hop [--tokens 500] [--hidden 4096] [--heads 32] [--key KEY]

Real Worker processes; both clocks are this machine's monotonic one. A hidden state of 4096 in bf16 is 8 KiB, Mixtral's.
Workers of one rig talk through a Unix socket, others through TCP; both are measured, token by token in turns.
The floor is the same message over TCP and a bare grpc.aio stream between two processes, with the same pauses: after a pause threads
must be woken, which on a virtual machine can cost more than everything else. Measured in the same run.
Where others use the machine, `benchmarks.hop_processor` says more.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

from benchmarks.checkpoint import ensure
from benchmarks.processes import BareClient, described, even_plan, percentile, workers
from swarm.client.session import Session
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceServicer, StageServiceStub, add_StageServiceServicer_to_server
from swarm.wire.v1.tensor_pb2 import DTYPE_BF16, Tensor

WARM_UP = 32


@dataclass
class Times:
    """Seconds, a token each: between two Workers, of a whole traversal without its computing, and of that computing."""

    hop: list[float] = field(default_factory=list)
    overhead: list[float] = field(default_factory=list)
    computing: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Way:
    """How two Workers talk: with which key, and through a Unix socket or TCP on loopback."""

    key: str
    unix: bool

    def __str__(self) -> str:
        return f"{'TLS' if self.key else 'plain text'}, {'Unix socket' if self.unix else 'TCP'}"


@asynccontextmanager
async def conversing(folder: Path, tokens: int, way: Way) -> AsyncIterator[Session]:
    """A Session over two Workers of its own."""
    credentials, rigs = Credentials(way.key), ("here", "here" if way.unix else "there")
    plan = even_plan(described(folder), stages=2, threads=1, sessions=1, context=tokens + 64, rigs=rigs)
    async with workers(plan, credentials=credentials) as path:
        client = BareClient(path, credentials)
        session = Session(client)
        await session.reserve(tokens + 64)
        yield session
        await session.close()
        await client.close()


async def hops(tokens: int, hidden: int, heads: int, ways: Sequence[Way]) -> list[Times]:
    """The Times of a swarm of each kind. Tokens go through them in turns, so that other work on the machine meets all alike."""
    folder = Path(tempfile.gettempdir()) / f"swarm-bench-hop-{hidden}-{heads}"
    ensure(folder, hidden=hidden, ffn=64, blocks=2, heads=heads, kv_heads=max(1, heads // 4), head_dim=hidden // 32, vocab=512)
    found = [Times() for _ in ways]
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(conversing(folder, tokens + WARM_UP, way)) for way in ways]
        for number in range(tokens + WARM_UP):
            for session, times in zip(sessions, found, strict=True):
                session.append(number % 500)
                end = len(session.tokens)
                await session.traverse(end - 1, lambda at, upto: pb.Ask(rows=1, k=1))
                if number >= WARM_UP:
                    first, second = session.timings
                    times.hop.append(second.began_s - first.began_s - first.compute_s)
                    times.computing.append(first.compute_s + second.compute_s)
                    times.overhead.append(session.traversal_s - times.computing[-1])
    return found


class Receiver(StageServiceServicer):
    """Answers each frame with the moment at which it came."""

    async def Hop(self, requests: AsyncIterator[pb.MicroBatch], context: object) -> AsyncIterator[pb.Report]:
        async for frame in requests:
            yield pb.Report(id=frame.id, done=True, failed=[pb.StepStatus(message=repr(time.monotonic()))])


def receive(ports: Queue[int], key: str) -> None:
    """A process that receives frames and does nothing with them."""

    async def serve() -> None:
        credentials = Credentials(key)
        server = credentials.server()
        add_StageServiceServicer_to_server(Receiver(), server)
        ports.put(credentials.bind(server, "127.0.0.1:0"))
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


async def bare_transfers(port: int, count: int, hidden: int, pause_s: float, key: str) -> list[float]:
    """Seconds from writing a frame of one hidden state to its being read in another process."""
    taken = []
    async with Credentials(key).channel(f"127.0.0.1:{port}") as channel:
        call = StageServiceStub(channel).Hop()
        tensor = Tensor(dtype=DTYPE_BF16, shape=[1, hidden], data=bytes(2 * hidden))
        for number in range(count + WARM_UP):
            frame = pb.MicroBatch(model_id="bare" * 8, epoch=1, id=number, hidden=tensor)
            frame.steps.add(session=bytes(16), serial=number, position=number, tokens=[number])
            await asyncio.sleep(pause_s)
            started = time.monotonic()
            await call.write(frame)
            report = await call.read()
            if number >= WARM_UP:
                taken.append(float(report.failed[0].message) - started)
        call.cancel()
    return taken


def bare(count: int, hidden: int, pause_s: float, key: str) -> list[float]:
    """`bare_transfers` to a process of its own."""
    context = get_context("spawn")
    ports: Queue[int] = context.Queue()
    receiver = context.Process(target=receive, args=(ports, key), daemon=True)
    receiver.start()
    try:
        return asyncio.run(bare_transfers(ports.get(timeout=60), count, hidden, pause_s, key))
    finally:
        receiver.terminate()
        receiver.join()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=32, help="fewer compute less, for a machine that others use: say 4")
    parser.add_argument("--key", help="also measure a swarm with this key: TLS beside plain text, in the same run")
    given = parser.parse_args()
    ways = [Way(key, unix) for key in dict.fromkeys(("", given.key or "")) for unix in (True, False)]
    for way, times in zip(ways, asyncio.run(hops(given.tokens, given.hidden, given.heads, ways)), strict=True):
        show(str(way), times, bare(given.tokens, given.hidden, percentile(times.computing, 0.5), way.key))


def show(how: str, times: Times, floor: list[float]) -> None:
    """Print p50 and p99 in ms, and their ratio to the bare stream's."""
    print(f"{how} (load of the machine {os.getloadavg()[0]:.1f})")
    rows = {"bare gRPC stream, write to read": floor, "hop, send to compute start": times.hop}
    rows["traversal less computing (3 transfers)"] = times.overhead
    for name, values in rows.items():
        print(f"{name:40} p50 {1e3 * percentile(values, 0.5):7.3f} ms   p99 {1e3 * percentile(values, 0.99):7.3f} ms")
    print(f"hop over bare stream, p50: {percentile(times.hop, 0.5) / percentile(floor, 0.5):.2f}")


if __name__ == "__main__":
    main()
