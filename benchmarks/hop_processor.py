"""What one Hop costs in processor time, in all processes and threads: for machines on which the clock says what others do.

    python -m benchmarks.hop_processor [--rounds 5] [--tokens 150] [--hidden 4096] [--key KEY] [--tcp]

Two swarms with the same Blocks, one on two Workers and one on four, take tokens in turns: what four take more is that of two
Hops: of the loops and gRPC's threads, and of the compute threads, which begin and end a micro-batch more. The floors, at about the
same pace and in turns with them: a message there and a report back over a bare grpc.aio stream, and the same bytes over a bare
asyncio connection, each between two processes.
With a key, both swarms and the floor of gRPC are there a second time, over TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from pathlib import Path
from statistics import median

import psutil  # type: ignore[import-untyped]

from benchmarks.checkpoint import ensure
from benchmarks.hop import receive
from benchmarks.processes import BareClient, described, even_plan, workers
from swarm.client.session import Session
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub
from swarm.wire.v1.tensor_pb2 import DTYPE_BF16, Tensor

FEW, MANY = 2, 4
"""Workers of the two swarms."""
PAUSE_S = 0.002
"""Between two messages of a floor: about what a Stage of this model computes."""


@dataclass
class Spent:
    """Processor seconds of a token or message, one entry a round."""

    talking: list[float] = field(default_factory=list)
    """Of the other processes, but for their compute threads."""
    computing: list[float] = field(default_factory=list)
    here: list[float] = field(default_factory=list)

    @property
    def all(self) -> list[float]:
        """Of all processes."""
        return [a + b + c for a, b, c in zip(self.talking, self.computing, self.here, strict=True)]


@dataclass
class Turn:
    """Something that is done many times, by this process and others."""

    name: str
    once: Callable[[int], Awaitable[object]]
    others: list[int]
    """Process ids."""
    spent: Spent = field(default_factory=Spent)

    async def round(self, first: int, count: int, counts: bool) -> None:
        """Do it so often, and note what it took unless that was to warm up."""
        before, here = [_threads_s(pid) for pid in self.others], time.process_time()
        for number in range(first, first + count):
            await self.once(number)
        if counts:
            self.spent.here.append((time.process_time() - here) / count)
            parts = [_parts_s(pid, old) for pid, old in zip(self.others, before, strict=True)]
            self.spent.talking.append(sum(talking for talking, _ in parts) / count)
            self.spent.computing.append(sum(computing for _, computing in parts) / count)


def _threads_s(process: int) -> dict[int, float]:
    """Processor seconds of each of its threads, as Linux schedules them: to the nanosecond, where others count ticks of 10 ms."""
    return {
        int(task.name): int((task / "schedstat").read_text().split()[0]) / 1e9 for task in Path(f"/proc/{process}/task").iterdir()
    }


def _parts_s(process: int, before: dict[int, float]) -> tuple[float, float]:
    """What it spent since then: its compute thread, which is the busiest beside the first, apart from the others."""
    spent = {thread: seconds - before.get(thread, 0.0) for thread, seconds in _threads_s(process).items()}
    computing = max((seconds for thread, seconds in spent.items() if thread != process), default=0.0)
    return sum(spent.values()) - computing, computing


@asynccontextmanager
async def conversing(folder: Path, stages: int, tokens: int, key: str, tcp: bool) -> AsyncIterator[Turn]:
    """One token after the other through Workers of their own."""
    credentials, before = Credentials(key), {child.pid for child in psutil.Process().children()}
    rigs = [f"rig{stage}" if tcp else "here" for stage in range(stages)]
    plan = even_plan(described(folder), stages=stages, threads=1, sessions=1, context=tokens, rigs=rigs)
    async with workers(plan, credentials=credentials) as path:
        session = Session(client := BareClient(path, credentials))
        await session.reserve(tokens)

        async def token(number: int) -> None:
            session.append(number % 500)
            await session.traverse(len(session.tokens) - 1, lambda at, upto: pb.Ask(rows=1, k=1))

        started = [child.pid for child in psutil.Process().children() if child.pid not in before]
        yield Turn(f"{stages} Workers", token, started)
        await session.close()
        await client.close()


@contextmanager
def process(serve: Callable[[Queue[int], str], None], key: str) -> Iterator[tuple[SpawnProcess, int]]:
    """A process of its own that serves at a port."""
    context = get_context("spawn")
    ports: Queue[int] = context.Queue()
    serving = context.Process(target=serve, args=(ports, key), daemon=True)
    serving.start()
    try:
        yield serving, ports.get(timeout=60)
    finally:
        serving.terminate()
        serving.join()


def _frame(number: int, hidden: int) -> pb.MicroBatch:
    tensor = Tensor(dtype=DTYPE_BF16, shape=[1, hidden], data=bytes(2 * hidden))
    frame = pb.MicroBatch(model_id="bare" * 8, epoch=1, id=number, hidden=tensor)
    frame.steps.add(session=bytes(16), serial=number, position=number, tokens=[number])
    return frame


@asynccontextmanager
async def bare_grpc(hidden: int, key: str) -> AsyncIterator[Turn]:
    """A frame there, a report back, over a stream of grpc.aio."""
    with process(receive, key) as (serving, port):
        async with Credentials(key).channel(f"127.0.0.1:{port}") as channel:
            call = StageServiceStub(channel).Hop()

            async def exchange(number: int) -> None:
                await asyncio.sleep(PAUSE_S)
                await call.write(_frame(number, hidden))
                await call.read()

            assert serving.pid is not None
            yield Turn("bare grpc.aio", exchange, [serving.pid])
            call.cancel()


class Echo(asyncio.Protocol):
    """Answers each frame, of which the length goes before it, with its first 32 bytes."""

    def __init__(self) -> None:
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came += data
        while len(self._came) >= 4 and len(self._came) >= (end := 4 + int.from_bytes(self._came[:4], "little")):
            frame, self._came = pb.MicroBatch.FromString(self._came[4:end]), self._came[end:]
            self._transport.write(pb.Report(id=frame.id, done=True).SerializeToString().ljust(32))


def echo(ports: Queue[int], key: str) -> None:
    """A process that answers over bare connections."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


@asynccontextmanager
async def bare_socket(hidden: int) -> AsyncIterator[Turn]:
    """The same over a connection of asyncio's own, in plain text."""
    with process(echo, "") as (serving, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def exchange(number: int) -> None:
            await asyncio.sleep(PAUSE_S)
            frame = _frame(number, hidden).SerializeToString()
            writer.write(len(frame).to_bytes(4, "little") + frame)
            await reader.readexactly(32)

        assert serving.pid is not None
        yield Turn("bare asyncio", exchange, [serving.pid])
        writer.close()


async def measure(rounds: int, tokens: int, hidden: int, keys: list[str], tcp: bool) -> dict[str, list[Turn]]:
    """What was done, by key: the swarm of few Workers, that of many, and the floors."""
    folder = Path(tempfile.gettempdir()) / f"swarm-bench-hop-{hidden}-{MANY}"
    ensure(folder, hidden=hidden, ffn=64, blocks=MANY, heads=4, kv_heads=1, head_dim=64, vocab=512)
    found: dict[str, list[Turn]] = {}
    async with AsyncExitStack() as stack:
        pause = Turn("pause", lambda _: asyncio.sleep(PAUSE_S), [])
        for key in keys:
            swarms = [conversing(folder, stages, (rounds + 1) * tokens + 1, key, tcp) for stages in (FEW, MANY)]
            floors = [bare_grpc(hidden, key), *([] if key else [bare_socket(hidden)])]
            found[key] = [await stack.enter_async_context(each) for each in (*swarms, *floors)] + [pause]
        turns = list({id(turn): turn for all_turns in found.values() for turn in all_turns}.values())
        for number in range(rounds + 1):
            for turn in turns:
                await turn.round(number * tokens, tokens, counts=number > 0)
    return found


def show(key: str, turns: list[Turn], tcp: bool) -> None:
    """Print milliseconds of processor time: medians over the rounds, and their range."""
    few, many, *floors, pause = turns
    print(f"{'TLS' if key else 'plain text'}, {'TCP' if tcp else 'Unix sockets'} (load of the machine {os.getloadavg()[0]:.1f})")
    idle = median(pause.spent.here)
    rows = {f"a token on {FEW} Workers": few.spent.all}
    rows["a Hop: loops and gRPC"] = _of_a_hop(few.spent.talking, many.spent.talking)
    rows["a Hop: compute threads"] = _of_a_hop(few.spent.computing, many.spent.computing)
    rows |= {f"{floor.name}, there and back": [each - idle for each in floor.spent.all] for floor in floors}
    for name, values in rows.items():
        ordered = sorted(1e3 * value for value in values)
        print(f"{name:32} {median(ordered):7.3f} ms   ({ordered[0]:.3f} to {ordered[-1]:.3f})")


def _of_a_hop(few: Iterable[float], many: Iterable[float]) -> list[float]:
    return [(b - a) / (MANY - FEW) for a, b in zip(few, many, strict=True)]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each that count; one more warms up")
    parser.add_argument("--tokens", type=int, default=150, help="in each turn")
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--key", help="also over TLS, with this key, in the same run")
    parser.add_argument("--tcp", action="store_true", help="Workers on different rigs, which talk over TCP on loopback")
    given = parser.parse_args()
    keys = list(dict.fromkeys(("", given.key or "")))
    found = asyncio.run(measure(given.rounds, given.tokens, given.hidden, keys, given.tcp))
    for key, turns in found.items():
        show(key, turns, given.tcp)


if __name__ == "__main__":
    main()
