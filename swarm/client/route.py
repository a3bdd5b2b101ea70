"""A client's two streams to one Route: Steps go to the entry Worker, Candidates come from the last one.

All Sessions of a client share them; what comes back is sorted to Sessions here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio

from swarm.errors import Expired, Lost, StepError, SwarmError, WrongKey
from swarm.lost import lost
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.presence import ask_presence
from swarm.wire.status import from_rpc, from_step, silence
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub

CONNECT_S = 10.0
CLOSE_S = 2.0


@dataclass(frozen=True)
class Event:
    """What came back for one Step."""

    serial: int
    answer: pb.StepAnswer | None = None
    timings: tuple[pb.StageTiming, ...] = ()
    error: SwarmError | None = None


class RouteStreams:
    """The two streams, for one epoch of the Plan.

    Args:
        plan: the Plan in force.
        route: which of its Routes.
        client: 16 bytes that name this client to the last Worker.
    """

    def __init__(self, plan: Plan, route: int, credentials: Credentials, client: bytes) -> None:
        self.plan = plan
        self.route = route
        self.broken: SwarmError | None = None
        """Why no Step goes through any more; a WrongKey, Full or Refused for good."""
        self._client = client
        self._entry = plan.worker(plan.routes[route].entry)
        self._last = plan.worker(plan.routes[route].last)
        addresses = dict.fromkeys((self._entry.address, self._last.address))
        self._channels = {address: credentials.channel(address) for address in addresses}
        self._entry_stub = StageServiceStub(self._channels[self._entry.address])
        self._last_stub = StageServiceStub(self._channels[self._last.address])
        self._sessions: dict[bytes, asyncio.Queue[Event]] = {}
        self._outbox: asyncio.Queue[pb.StepHeader] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open both streams; the last Worker has confirmed that it will answer. Raises Lost or WrongKey."""
        listening = self._last_stub.Listen(pb.ListenRequest(client=self._client, model_id=self.plan.model.model_id))
        try:
            async with asyncio.timeout(CONNECT_S):
                await listening.read()
        except grpc.aio.AioRpcError as error:
            listening.cancel()
            raise self._why(error, self._last.name) from None
        except TimeoutError:
            listening.cancel()
            raise lost(self.plan, self._last.name, "it does not answer") from None
        submitting = self._entry_stub.Submit()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._guard(self._listen(listening), self._last.name)),
            loop.create_task(self._guard(self._hear(submitting), self._entry.name)),
            loop.create_task(self._guard(self._send(submitting), self._entry.name)),
        ]

    def attach(self, session: bytes) -> asyncio.Queue[Event]:
        """Where the events of a Session arrive from now on."""
        self._sessions[session] = asyncio.Queue()
        return self._sessions[session]

    def detach(self, session: bytes) -> None:
        """The Session went elsewhere."""
        self._sessions.pop(session, None)

    async def open(
        self, session: bytes, positions: int, lease_s: float, hashes: Sequence[int], queued: Callable[[int], None], open_in: int = 0
    ) -> int:
        """Reserve a Session on every Stage; how many positions all of them hold already.

        Args:
            open_in: the epoch under which it was open before; 0: it is new.
            queued: told the Session's place whenever it must wait; 0: it is held back, since others come first after a change.

        Raises:
            TooLong, Full, Moved, Lost: see `swarm.worker.opening`.
        """
        request = pb.OpenRequest(
            session=session, epoch=self.plan.epoch, route=self.route, positions=positions, lease_s=lease_s,
            prefix_hashes=hashes, model_id=self.plan.model.model_id, open_in=open_in,
        )  # fmt: skip
        with self._calling(self._entry.name):
            async for reply in self._entry_stub.Open(request):
                if reply.state == pb.OpenReply.OPENED:
                    return int(reply.held)
                queued(reply.place if reply.state == pb.OpenReply.QUEUED else 0)
        raise lost(self.plan, self._entry.name, "it ended the call without an answer")

    def send(self, header: pb.StepHeader) -> None:
        """Queue a Step for the entry Worker. Raises Lost, or Moved, where the streams are broken."""
        if self.broken is not None:
            raise self.broken
        header.client = self._client
        self._outbox.put_nowait(header)

    async def check_there(self, seconds: float) -> None:
        """Ask both Workers whether they are there. Raises Lost, naming it, where one is not; the others ask each other.

        Args:
            seconds: how long they may take to say so: their loops answer at once, whatever they compute.
        """
        asked = {self._entry.name: self._entry_stub, self._last.name: self._last_stub}
        await asyncio.gather(*(self._check(name, stub, seconds) for name, stub in asked.items()))

    async def whole_row(self, session: bytes, serial: int) -> bytes:
        """The logits [vocab] fp32 of a Session's last asked position."""
        request = pb.WholeRowRequest(session=session, serial=serial, model_id=self.plan.model.model_id)
        with self._calling(self._last.name):
            return bytes((await self._last_stub.WholeRow(request, timeout=CONNECT_S)).row)

    async def release(self, session: bytes) -> None:
        """Give a Session's pages back on all Stages. Raises Lost or Moved where the entry Worker was not told."""
        self._sessions.pop(session, None)
        request = pb.CloseRequest(session=session, epoch=self.plan.epoch, route=self.route)
        with self._calling(self._entry.name):
            await self._entry_stub.Close(request, timeout=CLOSE_S)

    async def close(self, why: StepError | None = None) -> None:
        """End both streams; Sessions that wait on them hear why."""
        self._break(why or Lost("the connection was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()  # how they ended knows these streams
        for channel in self._channels.values():
            await channel.close(None)

    async def _listen(self, call: Any) -> None:
        # Not `async for`: the first message was read in this way too, and a call takes one way only.
        while (answer := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            timings = tuple(answer.timings)
            for step in answer.steps:
                self._tell(step.session, Event(step.serial, answer=step, timings=timings))

    async def _hear(self, call: Any) -> None:
        async for report in call:
            for status in report.failed:
                self._tell(status.session, Event(status.serial, error=from_step(status)))

    async def _send(self, call: Any) -> None:
        while True:
            steps = [await self._outbox.get()]
            while not self._outbox.empty():
                steps.append(self._outbox.get_nowait())
            frame = pb.MicroBatch(model_id=self.plan.model.model_id, epoch=self.plan.epoch, route=self.route, steps=steps)
            await call.write(frame)

    async def _guard(self, stream: Any, worker: str) -> None:
        """Run one side of a stream; its end, however it came, breaks the Route."""
        why: SwarmError = lost(self.plan, worker, "it closed the stream")
        try:
            await stream
        except grpc.aio.AioRpcError as error:
            meant = self._why(error, worker)
            why = meant if isinstance(meant, StepError | WrongKey) else lost(self.plan, worker, str(meant))
        except asyncio.InvalidStateError:
            why = lost(self.plan, worker, "the stream is closed")
        finally:
            self._break(why)

    def _break(self, why: SwarmError) -> None:
        if self.broken is None:
            self.broken = why
            for queue in self._sessions.values():
                queue.put_nowait(Event(0, error=why))

    def _tell(self, session: bytes, event: Event) -> None:
        if (queue := self._sessions.get(session)) is not None:
            queue.put_nowait(event)

    async def _check(self, worker: str, stub: StageServiceStub, seconds: float) -> None:
        try:
            with self._calling(worker):
                await ask_presence(lambda left: stub.Ping(pb.PingRequest(), timeout=left), seconds)
        except (Lost, Expired):
            self._break(gone := lost(self.plan, worker, "it says nothing"))
            raise gone from None

    @contextlib.contextmanager
    def _calling(self, worker: str) -> Iterator[None]:
        """Around a call: what it fails with becomes our error. Raises Lost where the streams are broken."""
        if self.broken is not None:
            raise self.broken
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._why(error, worker) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.broken is None or (task is not None and task.cancelling()):
                raise
            raise self.broken from None  # the channel was closed under the call, which gRPC says in the same way

    def _why(self, error: grpc.aio.AioRpcError, worker: str) -> SwarmError:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
            meant = from_rpc(error, f"worker {worker}")
            if isinstance(meant, StepError | WrongKey):
                return meant
            return lost(self.plan, worker, silence(error))
        return from_rpc(error, f"worker {worker}")
