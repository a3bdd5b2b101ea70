"""What Hops take is told apart from what the next Worker does with what came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from plans import plan_of
from raw_client import raw, step
from swarm_processes import until, workers_here

from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.hops import Hops
from swarm.worker.peers import Peers
from swarm.worker.ticket import Inside, Ticket

TEXT = [(37 * i) % 2900 + 20 for i in range(12)]


class NextWorker:
    """Both the peers and the stream: reports each micro-batch done after `works_s`, and says that it took them."""

    def __init__(self, works_s: float) -> None:
        self._works_s = works_s
        self._came: asyncio.Queue[int] = asyncio.Queue()
        self.streams = 0
        self.took: list[int] = []
        self.ends = False

    def stub(self, address: str) -> NextWorker:
        return self

    async def near(self, *stream: object) -> None:
        """It is on another rig."""

    def Hop(self) -> NextWorker:
        self.streams += 1
        return self

    async def write(self, frame: pb.MicroBatch) -> None:
        self.took.append(self.streams)
        self._came.put_nowait(frame.id)

    async def __aiter__(self) -> AsyncIterator[pb.Report]:
        while True:
            number, since = await self._came.get(), time.monotonic()
            await asyncio.sleep(self._works_s)
            if self.ends:
                return
            yield pb.Report(id=number, done=True, held_s=time.monotonic() - since)

    def cancel(self) -> None:
        """The stream ends with its reader."""


async def test_what_the_next_worker_did_meanwhile_is_no_part_of_the_hop() -> None:
    hops = Hops(cast(Peers, NextWorker(0.3)))
    done = asyncio.Event()
    ticket = Ticket(lambda failed, over, inside: done.set())
    began = time.monotonic()
    hops.send(plan_of([4, 8]), "w1", pb.MicroBatch(), ticket)
    await done.wait()
    took_s = time.monotonic() - began
    await hops.keep_only(())
    assert took_s > 0.3 and hops.work.count == 1
    assert 0 <= hops.work.seconds <= took_s - 0.3


@pytest.mark.parametrize("ends", [False, True])
async def test_with_another_key_a_stream_is_renewed_though_there_is_always_something_to_send(ends: bool) -> None:
    worker, ended = NextWorker(0.1), list[tuple[int, list[pb.StepStatus]]]()
    hops, plan = Hops(cast(Peers, worker)), plan_of([4, 8])

    def send(number: int) -> None:
        failed: list[pb.StepStatus] = []

        def report(some: list[pb.StepStatus], over: bool, inside: Inside) -> None:
            failed.extend(some)
            if over:
                ended.append((number, failed))

        hops.send(plan, "w1", pb.MicroBatch(steps=[pb.StepHeader(session=bytes(16))]), Ticket(report))

    send(1)
    await until(lambda: len(worker.took) == 1, "nothing came")
    worker.ends = ends
    hops.renew()
    send(2)
    send(3)
    await until(lambda: len(ended) == 3, "one is not told")
    assert [number for number, _ in ended] == [1, 2, 3]
    assert worker.took == ([1] if ends else [1, 2, 2]), "behind what was out already, on the new stream"
    assert [bool(failed) for _, failed in ended] == [ends] * 3
    worker.ends = False
    send(4)
    await until(lambda: len(ended) == 4, "nothing goes there any more")
    assert not ended[-1][1] and worker.streams == 2
    await hops.keep_only(())


async def test_each_stage_but_the_last_counts_its_hops_and_what_they_carried() -> None:
    plan = plan_of([3, 6, 8], sessions=2, context=64)
    async with workers_here(plan) as workers, raw(plan) as client:
        session = await client.open(32)
        for at in range(0, 12, 2):
            await client.ask(step(session, TEXT, at, at + 2))
        # Reports come back behind the answers.
        await until(lambda: all(workers[w].status().hops.count == 6 for w in ("w0", "w1")), "the hops are not reported done")
        counted: list[Any] = [workers[w].status().hops for w in ("w0", "w1", "w2")]
    assert [hops.count for hops in counted] == [6, 6, 0]
    assert all(hops.bytes >= 12 * plan.model.config.hidden * 4 and hops.seconds > 0 for hops in counted[:2])
