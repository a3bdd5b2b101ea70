"""What waits at the entry Stage: bounded, counted once, and never without an answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from plans import plan_of
from questions import ask_all, questions
from raw_client import RawClient, raw, step
from swarm_processes import InMemory, until, workers_here

from swarm.client.client import open_client
from swarm.model.rows import Rows
from swarm.model.stage import Stage
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.entry import EntryStage
from swarm.worker.waiting_step import WaitingStep
from swarm.worker.worker import Worker

TEXT = list(range(400, 480))


@dataclass
class Busy:
    """One Worker whose compute thread works on another Session's Step until `go_on`."""

    worker: Worker
    client: RawClient
    go_on: threading.Event

    @property
    def waiting(self) -> int:
        return len(self.worker.entry._queue)


@asynccontextmanager
async def busy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Busy]:
    plan = plan_of([8], context=64)
    computing, go_on = threading.Event(), threading.Event()
    really = Stage.forward

    def slowly(stage: Stage, h: torch.Tensor, rows: Rows, *rest: Any) -> torch.Tensor:
        computing.set()
        assert go_on.wait(60)
        return really(stage, h, rows, *rest)

    async with workers_here(plan) as workers, raw(plan) as client:
        other = await client.open(64)
        monkeypatch.setattr(Stage, "forward", slowly)
        await client.send(step(other, TEXT, 0, 2))
        await until(computing.is_set, "nothing is computed")
        try:
            yield Busy(workers["w0"], client, go_on)
        finally:
            go_on.set()


async def test_a_clients_own_repetitions_of_steps_that_wait_are_not_counted_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with busy(monkeypatch) as swarm:
        session = await swarm.client.open(64)
        steps = [step(session, TEXT, 0, 60, ask=pb.Ask()), step(session, TEXT, 60, 61)]
        for _ in range(20):
            await swarm.client.send(*steps)
        await until(lambda: swarm.waiting == 2, "they do not wait once each")
        swarm.go_on.set()
        assert isinstance(await swarm.client.next(steps[1]), pb.StepAnswer)
        assert not [came for came in swarm.client.came if isinstance(came, pb.StepStatus)]


async def test_steps_that_wait_when_the_last_epoch_is_retired_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with busy(monkeypatch) as swarm:
        waits = step(await swarm.client.open(64), TEXT, 0, 4)
        await swarm.client.send(waits)
        await until(lambda: swarm.waiting == 1, "it does not wait")
        draining = asyncio.create_task(swarm.worker.drain(1, 10.0))
        status = await swarm.client.next(waits)
        assert isinstance(status, pb.StepStatus)
        assert status.code == pb.MOVED
        swarm.go_on.set()
        await draining


async def test_a_step_that_waits_beyond_its_deadline_is_told_so_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async with busy(monkeypatch) as swarm:
        waits = step(await swarm.client.open(64), TEXT, 0, 4, seconds_left=0.3)
        await swarm.client.send(waits)
        status = await swarm.client.next(waits)
        assert isinstance(status, pb.StepStatus)
        assert status.code == pb.EXPIRED
        assert not swarm.go_on.is_set()


async def test_running_answers_stay_spread_over_the_micro_batches_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    send = EntryStage._send

    def sent(entry: EntryStage, steps: list[WaitingStep]) -> None:
        sizes.append(sum(step.answering for step in steps))
        send(entry, steps)

    monkeypatch.setattr(EntryStage, "_send", sent)
    plan = plan_of([4, 8], in_flight=2)
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        await ask_all(client, questions("stories")[:4], at_once=4)
    assert max(sizes) == 2


async def test_the_next_step_waits_for_no_report_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryStage, "_reported", lambda entry, number, failed, done, inside: None)  # none comes back in time
    plan = plan_of([4, 8], in_flight=1)
    story = questions("stories")[0]
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        async with asyncio.timeout(60):
            assert await ask_all(client, [story], at_once=1) == [story.answer]
