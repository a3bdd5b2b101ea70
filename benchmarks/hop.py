"""The software cost of one Hop on loopback: from the end of one Stage's computing to the beginning of the next's.

    python benchmarks/hop.py [--tokens 500] [--hidden 4096]

Real Worker processes; both clocks are this machine's monotonic one. A hidden state of 4096 in bf16 is 8 KiB, Mixtral's.
The limit is a bare gRPC round trip over an open stream, halved, with the same payload, measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import grpc.aio

from benchmarks.checkpoint import ensure
from benchmarks.processes import BareClient, described, even_plan, percentile, workers
from swarm.client.session import Session
from swarm.wire.v1 import stage_pb2 as pb


async def hops(tokens: int, hidden: int) -> tuple[list[float], list[float]]:
    """Seconds of each Hop between two Workers, and of each traversal without its computing."""
    folder = Path(tempfile.gettempdir()) / f"swarm-bench-hop-{hidden}"
    ensure(folder, hidden=hidden, ffn=64, blocks=2, heads=32, kv_heads=8, vocab=512)
    plan = even_plan(described(folder), stages=2, threads=1, sessions=1, context=tokens + 64)
    taken, overhead = [], []
    async with workers(plan) as path:
        client = BareClient(path)
        session = Session(client)
        await session.reserve(tokens + 64)
        for number in range(tokens + 32):
            session.append(number % 500)
            end = len(session.tokens)
            await session.traverse(end - 1, lambda at, upto: pb.Ask(rows=1, k=1))
            first, second = session.timings
            if number >= 32:
                taken.append(second.began_s - first.began_s - first.compute_s)
                overhead.append(session.traversal_s - first.compute_s - second.compute_s)
        await session.close()
        await client.close()
    return taken, overhead


async def bare_round_trips(count: int, num_bytes: int) -> list[float]:
    """Seconds of each round trip of so many bytes over one open stream, in one process."""

    async def echo(requests: object, context: object) -> object:
        async for request in requests:  # type: ignore[attr-defined]
            yield request

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)  # type: ignore[arg-type]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    taken = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream("/bare/Echo")()
        payload = bytes(num_bytes)
        for number in range(count + 32):
            started = time.monotonic()
            await call.write(payload)
            await call.read()
            if number >= 32:
                taken.append(time.monotonic() - started)
        call.cancel()
    await server.stop(None)
    return taken


def main() -> None:
    """Print p50 and p99 in ms, and their ratio to the bare stream's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=4096)
    given = parser.parse_args()
    bare = [t / 2 for t in asyncio.run(bare_round_trips(given.tokens, 2 * given.hidden))]
    taken, overhead = asyncio.run(hops(given.tokens, given.hidden))
    rows = {
        "bare gRPC stream, one way": bare,
        "hop, send to compute start": taken,
        "traversal less computing (3 transfers)": overhead,
    }
    for name, values in rows.items():
        print(f"{name:40} p50 {1e3 * percentile(values, 0.5):7.3f} ms   p99 {1e3 * percentile(values, 0.99):7.3f} ms")
    print(f"hop over bare stream, p50: {percentile(taken, 0.5) / percentile(bare, 0.5):.2f}")


if __name__ == "__main__":
    main()
