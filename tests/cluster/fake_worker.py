"""A Worker without a model: it keeps orders in a list. In memory as an Agent, over gRPC, or as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace

import grpc.aio

from cluster.agents import Agent, Description, DialOrder, LinkOrder, PrepareOrder
from cluster.fetch_plan import Absent, Survey
from cluster.measurements import Figures, Shape
from cluster.planner.hardware import Link, Speed
from cluster.roster import Device
from cluster.weights_orders import FetchOrder, PeerAt, SurveyOrder
from swarm.config import ModelConfig
from swarm.errors import CorruptWeights, Expired, Full, MissingWeights, NoSwarm, SwarmError
from swarm.plan import Model, Plan
from swarm.wire.credentials import Credentials
from swarm.wire.dial import NO_ANSWER, dial
from swarm.wire.status import to_rpc
from swarm.wire.v1 import assets_pb2, rig_pb2, rig_pb2_grpc, weights_pb2, weights_pb2_grpc, worker_pb2, worker_pb2_grpc

CONFIG = ModelConfig(
    architecture="MixtralForCausalLM", hidden=64, ffn=128, num_blocks=8, num_heads=4, num_kv_heads=2, head_dim=16,
    num_experts=4, top_k=2, vocab=256, max_positions=1024, norm_eps=1e-5, rope_theta=1e6, tied_head=False, dtype="fp32",
    bos_id=1, eos_ids=(2,),
)  # fmt: skip
MODELS = {
    "nano": Model("nano", "nano", "id-nano", "fp32", CONFIG),
    "deep": Model("deep", "deep", "id-deep", "fp32", replace(CONFIG, num_blocks=16)),
    "other": Model("other", "other", "id-other", "fp32", replace(CONFIG, ffn=192)),
}
MIB, GIB = 2**20, 2**30
SPEED = Speed.of(20e9, 500e9, 10e-6, 4)


def of_the_hub(*absent: str, held: str = "", free: int = 100 * GIB, trouble: str = "") -> Survey:
    """What a Rig has, and lacks, of a model's files."""
    files = {name: Absent(GIB, GIB // 2) for name in absent}
    return Survey("", "", "", files, frozenset(held.split()), "/snapshot", "/hub", free, trouble)


class FakeWorker:
    """What a Worker does, without doing it. `orders` is everything it was told, in order, shared by all of a test."""

    def __init__(self, name: str = "", orders: list[str] | None = None) -> None:
        self.name = name
        self.orders: list[str] = [] if orders is None else orders
        self.alive = True
        self.fail_prepare: SwarmError | None = None
        self.fails_for = ""
        self.weights = Survey("", "", "")
        """What its Rig has of the model's files."""
        self.fail_fetch: SwarmError | None = None
        self.hold_fetch = asyncio.Event()
        self.hold_fetch.set()
        self.peers: tuple[PeerAt, ...] = ()
        """Of its last Prepare."""
        self.keeps = 0
        """An epoch that it does not give back when it is told to drain it."""
        self.die_in_prepare = False
        self.hold_prepare = asyncio.Event()
        self.hold_prepare.set()
        self.plans: dict[int, Plan] = {}
        self.epoch = 0
        self.speed = SPEED
        self.dtypes: tuple[str, ...] = ("fp32", "fp16", "bf16")
        self.free_bytes = 0
        self.fail_measure: SwarmError | None = None
        self.hold_measure = asyncio.Event()
        self.hold_measure.set()
        self.link: Link | SwarmError = Link(0.5e-3, 100e6)
        self.measured: list[str] = []
        """What was asked to be measured: dtypes, and addresses of other Workers."""
        self.reaches: Callable[[str, int], bool] | None = None
        """In the place of dialling, where a test says what can be reached."""
        self.sessions = 0
        self.choices: dict[int, list[int]] = {}
        """By Block of its Stage, how often each expert was chosen."""
        self.steps = worker_pb2.Work()
        self.looked_at = 0
        self.pid = os.getpid()
        self.started = time.monotonic()

    def start_anew(self) -> None:
        """Be another process, which holds nothing."""
        self.plans.clear()
        self.epoch, self.pid, self.started = 0, self.pid + 1, time.monotonic()

    def _say(self, order: str) -> None:
        self.orders.append(f"{self.name}: {order}")

    def serves(self, rows: int, seconds_a_byte: float) -> None:
        """Count so many rows more, each of a mebibyte."""
        self.steps.count += rows
        self.steps.bytes += rows * MIB
        self.steps.seconds += rows * MIB * seconds_a_byte

    def _answer(self) -> None:
        if not self.alive:
            raise NoSwarm(f"{self.name} is dead")

    async def describe(self, model: str, dtype: str) -> Description:
        self._answer()
        if model not in MODELS:
            raise MissingWeights(f"{model} has no config.json: give a folder in Hugging Face layout")
        return Description(MODELS[model], {"config.json": json.dumps(MODELS[model].config.to_json()).encode()})

    async def prepare(self, order: PrepareOrder) -> AsyncIterator[tuple[int, int]]:
        self._answer()
        plan = Plan.from_json(order.plan)
        self.name, self.peers = order.name, order.peers
        self._say(f"prepare {plan.epoch}{' release_first' if order.release_first else ''}")
        yield 0, plan.worker(self.name).weights_bytes
        try:
            await self.hold_prepare.wait()
        except asyncio.CancelledError:
            self._say(f"called off {plan.epoch}")
            raise
        if self.die_in_prepare:
            self.alive = False
        self._answer()
        if self.fail_prepare and self.fails_for in plan.model.name:
            raise self.fail_prepare
        if order.release_first:
            self.plans.clear()
        self.plans[plan.epoch] = plan
        yield plan.worker(self.name).weights_bytes, plan.worker(self.name).weights_bytes

    async def survey(self, order: SurveyOrder) -> Survey:
        self._answer()
        return replace(self.weights, rig=order.rig, worker=order.name, address=order.address)

    async def fetch(self, order: FetchOrder) -> AsyncIterator[tuple[int, int, float]]:
        self._answer()
        self._say(f"fetch {' '.join(order.files)}")
        if self.fail_fetch:
            raise self.fail_fetch
        size = sum(self.weights.absent[name].file_bytes for name in order.files if name in self.weights.absent)
        yield size, size, 1e6
        await self.hold_fetch.wait()
        held = self.weights.held | set(order.files)
        self.weights = replace(self.weights, held=held, absent={n: a for n, a in self.weights.absent.items() if n not in held})

    async def commit(self, epoch: int) -> None:
        self._answer()
        self._say(f"commit {epoch}")
        self.epoch = epoch

    async def drain(self, epoch: int, deadline_s: float) -> None:
        self._answer()
        if epoch == self.keeps:
            raise Expired(f"{self.name} is busy with epoch {epoch}")
        self._say(f"drain {epoch}")
        self.plans.pop(epoch, None)

    async def status(self, timeout_s: float) -> worker_pb2.WorkerStatus:
        self._answer()
        self.looked_at += 1
        plan = self.plans.get(self.epoch)
        held = plan.worker(self.name) if plan else None
        return worker_pb2.WorkerStatus(
            name=self.name,
            pid=self.pid,
            epochs=sorted(self.plans),
            epoch=self.epoch,
            weights_bytes=held.weights_bytes if held else 0,
            kv_bytes=held.kv_bytes if held else 0,
            sessions=self.sessions,
            steps=self.steps,
            end=max((s.end for r in plan.routes for s in r.stages if s.worker == self.name), default=0) if plan else 0,
            choices=[worker_pb2.BlockChoices(block=block, counts=counts) for block, counts in self.choices.items()],
            up_s=time.monotonic() - self.started,
            plan=plan.to_json() if plan else "",
        )

    async def measure(self, shape: Shape, beside: bool = False) -> Figures:
        self._answer()
        self.measured.append(shape.dtype)
        await self.hold_measure.wait()
        self._answer()
        if self.fail_measure and not (beside and isinstance(self.fail_measure, Full)):
            raise self.fail_measure
        return Figures(self.speed, self.dtypes, free_bytes=self.free_bytes)

    async def measure_link(self, order: LinkOrder) -> Link:
        self._answer()
        self.measured.append(f"{order.address} beside" if order.beside else order.address)
        if isinstance(self.link, SwarmError):
            raise self.link
        return self.link

    async def dial(self, order: DialOrder) -> list[str]:
        self._answer()
        if self.reaches:
            return ["" if self.reaches(order.host, port) else NO_ANSWER for port in order.ports]
        return await dial(order.host, order.ports, order.timeout_s)

    async def close(self) -> None:
        """Nothing to give up."""


class FakeAgents:
    """Appoints the FakeWorker at a Device's address as its own Agent; remembers under which names."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.workers: dict[str, FakeWorker] = {}
        self.named: dict[str, str] = {}
        self.unreachable: set[str] = set()
        """Devices whose Ray node hangs."""

    async def appoint(self, device: Device, holding: str) -> Agent:
        while device.name in self.unreachable:
            await asyncio.sleep(0.01)
        self.named[device.name] = holding
        return self.plain(device)

    async def nodes(self) -> dict[str, str] | None:
        return None

    def plain(self, device: Device) -> Agent:
        worker = self.workers.setdefault(device.address, FakeWorker(device.name, self.orders))
        worker.name = device.name
        return worker


class Servicer(worker_pb2_grpc.WorkerServiceServicer):
    """A FakeWorker over gRPC."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker

    async def Describe(self, request, context):  # type: ignore[no-untyped-def]
        try:
            found = await self._worker.describe(request.model, request.dtype)
        except SwarmError as error:
            await context.abort(*to_rpc(error))
        assets = [assets_pb2.Asset(name=n, data=d) for n, d in found.assets.items()]
        return worker_pb2.DescribeReply(model=json.dumps(asdict(found.model)), assets=assets)

    async def Prepare(self, request, context):  # type: ignore[no-untyped-def]
        try:
            async for loaded, total in self._worker.prepare(PrepareOrder(request.plan, request.name, request.release_first)):
                yield worker_pb2.PrepareProgress(loaded_bytes=loaded, total_bytes=total)
        except SwarmError as error:
            await context.abort(*to_rpc(error))

    async def Commit(self, request, context):  # type: ignore[no-untyped-def]
        await self._worker.commit(request.epoch)
        return worker_pb2.EpochReply()

    async def Drain(self, request, context):  # type: ignore[no-untyped-def]
        await self._worker.drain(request.epoch, request.deadline_s)
        return worker_pb2.EpochReply()

    async def Status(self, request, context):  # type: ignore[no-untyped-def]
        return await self._worker.status(1.0)

    async def Measure(self, request, context):  # type: ignore[no-untyped-def]
        found = await self._worker.measure(Shape(request.dtype, request.hidden, request.ffn), request.beside)
        if request.dtype not in self._worker.dtypes:
            return worker_pb2.MeasureReply(dtypes=found.dtypes)
        products = [worker_pb2.Product(rows=rows, seconds_a_byte=each) for rows, each in found.speed.products]
        start_s, software_s = found.speed.start_s, found.speed.software_s
        several_s = found.speed.several_start_s
        return worker_pb2.MeasureReply(
            products=products, start_s=start_s, several_start_s=several_s, software_s=software_s, dtypes=found.dtypes
        )

    async def MeasureLink(self, request, context):  # type: ignore[no-untyped-def]
        found = await self._worker.measure_link(LinkOrder(request.address, request.budget_s, request.beside))
        return worker_pb2.LinkReply(rtt_s=found.rtt_s, bytes_per_s=found.bytes_per_s, calls_rtt_s=found.calls_rtt_s)

    async def Dial(self, request, context):  # type: ignore[no-untyped-def]
        return worker_pb2.DialReply(why=await self._worker.dial(DialOrder(request.host, tuple(request.ports), request.timeout_s)))


class Weights(weights_pb2_grpc.WeightsServiceServicer):
    """A Rig that has all files that its Worker needs."""

    async def Survey(self, request, context):  # type: ignore[no-untyped-def]
        return weights_pb2.SurveyReply()


class Called(rig_pb2_grpc.RigServiceServicer):
    """Remembers where its swarm is said to be."""

    def __init__(self) -> None:
        self._swarm = ""

    async def Call(self, request, context):  # type: ignore[no-untyped-def]
        self._swarm = request.swarm or self._swarm
        return rig_pb2.CallReply(swarm=self._swarm)


async def serve(worker: FakeWorker, credentials: Credentials, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str]:
    """Serve a FakeWorker; returns the server and host:port."""
    server = credentials.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(Servicer(worker), server)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(Weights(), server)
    rig_pb2_grpc.add_RigServiceServicer_to_server(Called(), server)
    port = credentials.bind(server, address)
    await server.start()
    return server, f"{address.rpartition(':')[0]}:{port}"


async def main() -> None:
    """The same start and end as a real Worker's: key on standard input, `ready` on standard output, gone at end of file."""
    parser = argparse.ArgumentParser()
    for name in ("name", "listen", "device", "threads", "memory-bytes", "logs"):
        parser.add_argument(f"--{name}", default="")
    key = sys.stdin.readline().strip()
    options = sys.argv[1:]
    if options == ["--spare"]:
        print("warm", flush=True)
        options = json.loads(sys.stdin.readline() or "null")["options"]
    args = parser.parse_args(options)
    if args.device == "cuda:9":
        raise SystemExit("cuda:9 is not a device of this machine")
    worker = FakeWorker(args.name)
    worker.fail_prepare = CorruptWeights("a file is truncated") if args.device == "cuda:8" else None
    _, address = await serve(worker, Credentials(key), args.listen)
    print(f"ready {address}", flush=True)
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    loop.add_reader(sys.stdin, done.set)
    await done.wait()


if __name__ == "__main__":
    asyncio.run(main())
