"""A client that says exactly what a test wants said, over StageService itself."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from swarm.plan import Plan
from swarm.prefix_hash import prefix_hashes
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub

PATIENCE_S = 20.0
ASK = pb.Ask(rows=1, k=64, temperature=0.7)
SERIALS = itertools.count(1)


def step(
    session: bytes,
    text: Sequence[int],
    start: int,
    end: int | None = None,
    *,
    serial: int | None = None,
    prefix_hash: int | None = None,
    ask: pb.Ask = ASK,
    seconds_left: float = 60.0,
) -> pb.StepHeader:
    """The Step of `text[start:end]`, its hash taken from the text before it."""
    return pb.StepHeader(
        session=session, serial=next(SERIALS) if serial is None else serial, position=start, tokens=text[start:end],
        prefix_hash=prefix_hashes(text[:start])[-1] if prefix_hash is None else prefix_hash, seconds_left=seconds_left, ask=ask,
    )  # fmt: skip


class RawClient:
    """Streams to a Route's ends, and everything that came back on them, in order."""

    def __init__(self, plan: Plan, credentials: Credentials) -> None:
        self.plan = plan
        self.id = os.urandom(16)
        route = plan.routes[0]
        self._channels = [credentials.channel(plan.worker(name).address) for name in (route.entry, route.last)]
        self.entry, self.last = (StageServiceStub(channel) for channel in self._channels)
        self.came: list[pb.StepAnswer | pb.StepStatus] = []
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._submitting = self.entry.Submit()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        listening = self.last.Listen(pb.ListenRequest(client=self.id, model_id=self.plan.model.model_id))
        await listening.read()
        self._tasks = [asyncio.create_task(self._listen(listening)), asyncio.create_task(self._hear())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close(None)

    async def open(self, positions: int = 256, text: Sequence[int] = (), **changed: Any) -> bytes:
        """Open a Session and give its name."""
        session = os.urandom(16)
        await self.reopen(session, positions, text, **changed)
        return session

    async def reopen(self, session: bytes, positions: int = 256, text: Sequence[int] = (), **changed: Any) -> int:
        """Open a Session; how many positions every Stage holds."""
        async for reply in self.entry.Open(self.opening(session, positions, text, **changed)):
            if reply.state == pb.OpenReply.OPENED:
                return int(reply.held)
        raise AssertionError("the queue ended without an answer")

    def opening(self, session: bytes, positions: int = 256, text: Sequence[int] = (), **changed: Any) -> pb.OpenRequest:
        asked: dict[str, Any] = {"epoch": self.plan.epoch, "lease_s": 60.0, "model_id": self.plan.model.model_id}
        return pb.OpenRequest(session=session, positions=positions, prefix_hashes=prefix_hashes(text), **(asked | changed))

    async def release(self, session: bytes) -> None:
        await self.entry.Close(pb.CloseRequest(session=session, epoch=self.plan.epoch))

    async def send(self, *steps: pb.StepHeader, **changed: Any) -> None:
        """One frame, as the Plan has it but for what is `changed`."""
        where: dict[str, Any] = {"model_id": self.plan.model.model_id, "epoch": self.plan.epoch, "route": 0}
        for each in steps:
            each.client = self.id
        async with self._writing:  # gRPC takes one write of a stream at a time
            await self._submitting.write(pb.MicroBatch(steps=steps, **(where | changed)))

    async def ask(self, *steps: pb.StepHeader, **changed: Any) -> list[pb.StepAnswer]:
        """Send a frame and wait for the answer of each Step."""
        seen = len(self.came)
        await self.send(*steps, **changed)
        found = [await self.next(each, seen) for each in steps]
        for each in found:
            assert isinstance(each, pb.StepAnswer), f"refused: {each}"
        return found  # type: ignore[return-value]

    async def fails(self, each: pb.StepHeader, **changed: Any) -> pb.StepStatus:
        """Send a Step that is not served; the status that says so."""
        seen = len(self.came)
        await self.send(each, **changed)
        found = await self.next(each, seen)
        assert isinstance(found, pb.StepStatus), f"answered: {found}"
        return found

    async def next(self, each: pb.StepHeader, after: int = 0) -> pb.StepAnswer | pb.StepStatus:
        """The first answer to a Step, or its status, among what came `after` so many others."""

        def found() -> pb.StepAnswer | pb.StepStatus | None:
            return next((c for c in self.came[after:] if (c.session, c.serial) == (each.session, each.serial)), None)

        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: found() is not None)
        answer = found()
        assert answer is not None
        return answer

    async def _listen(self, call: Any) -> None:
        while (answer := await call.read()) is not grpc.aio.EOF:
            await self._note(answer.steps)

    async def _hear(self) -> None:
        async for report in self._submitting:
            await self._note(report.failed)

    async def _note(self, came: Sequence[Any]) -> None:
        async with self._changed:
            self.came += came
            self._changed.notify_all()


@asynccontextmanager
async def raw(plan: Plan, credentials: Credentials | None = None) -> AsyncIterator[RawClient]:
    client = RawClient(plan, credentials or Credentials())
    try:
        await client.start()
        yield client
    finally:
        await client.close()


def bits(*answers: pb.StepAnswer) -> list[list[bytes]]:
    """Everything that Candidates say, as bytes."""
    return [[row.SerializeToString(deterministic=True) for row in answer.rows] for answer in answers]
