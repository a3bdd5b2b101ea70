"""An Agent passes the Coordinator's orders to one Worker. The port, and its plain twin that dials the Worker itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from cluster.fetch_plan import Survey
from cluster.measurements import Figures, Shape
from cluster.planner.costs import KERNELS_CORE, KERNELS_EXPERT
from cluster.planner.hardware import Link, Speed
from cluster.roster import Device
from cluster.weights_orders import FetchOrder, PeerAt, SurveyOrder, peers
from swarm.bits import Bits
from swarm.errors import DeviceError, NoSwarm
from swarm.plan import Model
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import weights_pb2_grpc, worker_pb2_grpc
from swarm.wire.v1 import worker_pb2 as pb

DESCRIBE_S = 600.0
"""How long a Rig may take to look a model up (its config and headers may come from the Hub)."""
ORDER_S = 30.0
MEASURE_S = 2.0
"""How long measuring one Device may take."""
PATIENCE_S = 1.0
"""How long a measurement waits for a Worker that serves to be idle."""
T = TypeVar("T")


@dataclass(frozen=True)
class Description:
    """What a model is, and the small files that clients need of it."""

    model: Model
    assets: Mapping[str, bytes]

    @property
    def assets_sha256(self) -> str:
        """Checksum over all names and contents, in the order of the names."""
        total = sha256()
        for name, data in sorted(self.assets.items()):
            total.update(name.encode() + b"\0" + data)
        return total.hexdigest()


@dataclass(frozen=True)
class PrepareOrder:
    """What one Worker shall load: its part of a Plan (JSON)."""

    plan: str
    name: str
    release_first: bool
    peers: tuple[PeerAt, ...] = ()
    """Other Rigs that weights may be taken from."""

    def request(self) -> pb.PrepareRequest:
        return pb.PrepareRequest(plan=self.plan, name=self.name, release_first=self.release_first, peers=peers(self.peers))


@dataclass(frozen=True)
class LinkOrder:
    """Which way to measure: to the Worker at an address (host:port), in so many seconds.

    Args:
        beside: that Worker's name, where it is on the same Rig.
    """

    address: str
    budget_s: float
    beside: str = ""


@dataclass(frozen=True)
class DialOrder:
    """Which ports of a machine that wants to join to dial."""

    host: str
    ports: tuple[int, ...]
    timeout_s: float


class Agent(Protocol):
    """Passes orders to one Worker. All methods raise SwarmError: NoSwarm or Expired where the Worker does not answer."""

    async def describe(self, model: str, dtype: str) -> Description:
        """What a model is, as this Worker's Rig finds it."""
        ...

    def prepare(self, order: PrepareOrder) -> AsyncIterator[tuple[int, int]]:
        """Load; yields (loaded bytes, total bytes) and ends when all is loaded."""
        ...

    async def survey(self, order: SurveyOrder) -> Survey:
        """What a Worker lacks, and what its Rig has."""
        ...

    def fetch(self, order: FetchOrder) -> AsyncIterator[tuple[int, int, float]]:
        """Fetch from the Hub; yields (done bytes, total bytes, bytes a second) and ends when all is there."""
        ...

    async def commit(self, epoch: int) -> None: ...

    async def drain(self, epoch: int, deadline_s: float) -> None: ...

    async def status(self, timeout_s: float) -> pb.WorkerStatus: ...

    async def measure(self, shape: Shape, beside: bool = False) -> Figures:
        """How fast the Device computes, in at most `MEASURE_S`; in its own first dtype where it does not do the one asked for.

        Raises Full where its Worker serves, unless it may be measured beside that.
        """
        ...

    async def measure_link(self, order: LinkOrder) -> Link:
        """The way to another Worker. Raises Unreachable where that one does not answer."""
        ...

    async def dial(self, order: DialOrder) -> list[str]:
        """Why each port cannot be reached from this Worker's Rig; empty where it can."""
        ...

    async def close(self) -> None:
        """Give the Agent up; its Worker goes on."""
        ...


class Agents(Protocol):
    """Appoints the Agents of Devices."""

    def plain(self, device: Device) -> Agent:
        """An Agent at once, for a Device that has just joined; nobody sees it."""
        ...

    async def appoint(self, device: Device, holding: str) -> Agent:
        """An Agent named by what its Worker holds. Raises SwarmError where there can be none now."""
        ...

    async def nodes(self) -> Mapping[str, str] | None:
        """The id of the living Ray node of each Rig, by the Rig's id; None where that cannot be said."""
        ...


class WorkerAgent:
    """The plain twin: speaks to the Worker's gRPC address itself."""

    def __init__(self, credentials: Credentials, address: str, name: str) -> None:
        self._what = f"worker {name} at {address}"
        self._channel = credentials.channel(address)
        self._stub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._weights = weights_pb2_grpc.WeightsServiceStub(self._channel)
        self._closed = False

    async def describe(self, model: str, dtype: str) -> Description:
        return read_description(
            await self._ask(lambda: self._stub.Describe(pb.DescribeRequest(model=model, dtype=dtype), timeout=DESCRIBE_S))
        )

    async def prepare(self, order: PrepareOrder) -> AsyncIterator[tuple[int, int]]:
        async for progress in self._hear(lambda: self._stub.Prepare(order.request())):
            yield progress.loaded_bytes, progress.total_bytes

    async def survey(self, order: SurveyOrder) -> Survey:
        return order.read(await self._ask(lambda: self._weights.Survey(order.request(), timeout=DESCRIBE_S)))

    async def fetch(self, order: FetchOrder) -> AsyncIterator[tuple[int, int, float]]:
        async for progress in self._hear(lambda: self._weights.Fetch(order.request())):
            yield progress.done_bytes, progress.total_bytes, progress.bytes_per_s

    async def commit(self, epoch: int) -> None:
        await self._ask(lambda: self._stub.Commit(pb.EpochRequest(epoch=epoch), timeout=ORDER_S))

    async def drain(self, epoch: int, deadline_s: float) -> None:
        request = pb.EpochRequest(epoch=epoch, deadline_s=deadline_s)
        await self._ask(lambda: self._stub.Drain(request, timeout=deadline_s + ORDER_S))

    async def status(self, timeout_s: float) -> pb.WorkerStatus:
        return await self._ask(lambda: self._stub.Status(pb.WorkerStatusRequest(), timeout=timeout_s))

    async def measure(self, shape: Shape, beside: bool = False) -> Figures:
        reply = await self._measure(shape, beside)
        if not reply.products and reply.dtypes and Bits.of(shape.dtype).numbers not in reply.dtypes:
            return read_figures(await self._measure(replace(shape, dtype=reply.dtypes[0]), beside))  # in what it does compute
        return read_figures(reply)

    async def _measure(self, shape: Shape, beside: bool) -> pb.MeasureReply:
        request = pb.MeasureRequest(
            dtype=shape.dtype, hidden=shape.hidden, ffn=shape.ffn, budget_s=MEASURE_S, patience_s=PATIENCE_S,
            kernels_core=KERNELS_CORE, kernels_expert=KERNELS_EXPERT, beside=beside,
        )  # fmt: skip
        return await self._ask(lambda: self._stub.Measure(request, timeout=ORDER_S))

    async def measure_link(self, order: LinkOrder) -> Link:
        request = pb.LinkRequest(address=order.address, budget_s=order.budget_s, beside=order.beside)
        reply = await self._ask(lambda: self._stub.MeasureLink(request, timeout=order.budget_s + ORDER_S))
        return Link(reply.rtt_s, reply.bytes_per_s, reply.calls_rtt_s)

    async def dial(self, order: DialOrder) -> list[str]:
        request = pb.DialRequest(host=order.host, ports=order.ports, timeout_s=order.timeout_s)
        return list((await self._ask(lambda: self._stub.Dial(request, timeout=2 * order.timeout_s))).why)

    async def close(self) -> None:
        self._closed = True
        await self._channel.close(None)

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        with self._meaning():
            return await call()

    async def _hear(self, call: Callable[[], AsyncIterable[T]]) -> AsyncIterator[T]:
        with self._meaning():
            async for said in call():
                yield said

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        """Around a call: what it fails with becomes our error."""
        if self._closed:
            raise self._given_up()
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._what) from None
        except asyncio.CancelledError:
            if self._closed:  # gRPC cancels the calls of a channel that is closed, and so whoever waits for them
                raise self._given_up() from None
            raise

    def _given_up(self) -> NoSwarm:
        return NoSwarm(f"{self._what} has another agent now")


class WorkerAgents:
    """Appoints plain Agents: no Ray, and so nobody sees what they are named."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def plain(self, device: Device) -> Agent:
        return WorkerAgent(self._credentials, device.address, device.name)

    async def appoint(self, device: Device, holding: str) -> Agent:
        return self.plain(device)

    async def nodes(self) -> None:
        return None


def read_description(reply: pb.DescribeReply) -> Description:
    """What a Worker answered to Describe."""
    return Description(Model.from_json(json.loads(reply.model)), {a.name: a.data for a in reply.assets})


def read_figures(reply: pb.MeasureReply) -> Figures:
    """What a Worker answered to Measure. Raises DeviceError where there is no figure in it."""
    products = tuple((p.rows, p.seconds_a_byte) for p in reply.products)
    if not products or min(rows for rows, _ in products) < 1 or min(seconds for _, seconds in products) <= 0:
        raise DeviceError("measuring it gave no figures: look at its worker's log")
    return Figures(Speed(products, reply.start_s, reply.software_s, several_start_s=reply.several_start_s), tuple(reply.dtypes))
