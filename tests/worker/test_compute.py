"""The compute thread: shard work first, what goes wrong inside a batch is that batch's alone, and if it ends so does its Worker."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from plans import odd_experts_on, plan_of
from raw_client import bits, raw, step
from swarm_processes import until, workers_here

from swarm.model.experts import LocalExperts
from swarm.model.stage import Stage
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import frames, shards
from swarm.worker import worker as module
from swarm.worker.compute import Compute

TEXT = list(range(200, 230))


@pytest.fixture
def compute() -> Iterator[Compute]:
    made = Compute(1, "test")
    yield made
    made.stop()


def finish(compute: Compute) -> None:
    done = threading.Event()
    compute.submit(done.set)
    assert done.wait(60)


def test_shard_work_goes_before_stage_work(compute: Compute) -> None:
    order: list[str] = []
    begin = threading.Event()
    compute.submit(lambda: begin.wait(60))  # type: ignore[arg-type,return-value]
    compute.submit(lambda: order.append("stage"))
    compute.submit_shard(lambda: order.append("shard"))
    begin.set()
    finish(compute)
    assert order == ["shard", "stage"]


def test_a_job_that_waits_serves_shards_meanwhile(compute: Compute) -> None:
    served = threading.Event()
    outcome: list[bool] = []

    def shard() -> None:
        served.set()
        compute.wake()

    compute.submit(lambda: outcome.append(compute.wait_for(served.is_set, time.monotonic() + 10)))
    compute.submit_shard(shard)
    finish(compute)
    assert outcome == [True]


def test_waiting_ends_at_its_deadline_and_when_the_worker_stops(compute: Compute) -> None:
    outcome: list[bool] = []
    compute.submit(lambda: outcome.append(compute.wait_for(lambda: False, time.monotonic())))
    finish(compute)
    compute.submit(lambda: outcome.append(compute.wait_for(lambda: False, time.monotonic() + 60)))
    compute.stop()
    assert outcome in ([False], [False, False])


@pytest.mark.parametrize(
    "error", [KeyError("a page"), AssertionError("a hole"), IndexError("a row"), RuntimeError("no memory")], ids=repr
)
async def test_an_error_inside_the_model_fails_its_micro_batch_and_nothing_else(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of([4, 8])
    async with workers_here(plan), raw(plan) as client:
        session = await client.open(64)
        once = step(session, TEXT, 0, 10)

        def fails(*_: object) -> None:
            monkeypatch.undo()
            raise error

        monkeypatch.setattr(Stage, "forward", fails)
        with caplog.at_level(logging.CRITICAL):
            status = await client.fails(once)
        assert status.code == pb.LOST
        assert type(error).__name__ in status.message
        again = await client.ask(once)
        fresh = await client.open(64)
        assert bits(*again) == bits(*await client.ask(step(fresh, TEXT, 0, 10)))


@pytest.mark.parametrize("where", ["its Stage", "a shard for another"])
async def test_a_worker_whose_device_answers_no_more_ends_and_does_not_fail_one_step_after_the_other(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of([8], odd_experts_on("w1"))
    async with workers_here(plan) as workers, raw(plan) as client:
        ended = threading.Event()
        worker = workers["w0" if where == "its Stage" else "w1"]
        worker.compute._failed = ended.set
        session = await client.open(64)
        current = worker.epochs.current
        assert current is not None

        def fails(*_: object) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        if where == "its Stage":
            monkeypatch.setattr(Stage, "forward", fails)
        else:
            current.experts = LocalExperts(dict.fromkeys(current.experts.weights))  # type: ignore[misc]
        monkeypatch.setattr(frames if where == "its Stage" else shards, "still_computes", lambda device: False)
        with caplog.at_level(logging.CRITICAL):
            asking = asyncio.create_task(client.fails(step(session, TEXT, 0, 10)))
            assert await asyncio.to_thread(ended.wait, 60)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def test_a_worker_whose_card_hangs_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with workers_here(plan_of([8])) as workers:
        ended, over, worker = asyncio.Event(), threading.Event(), workers["w0"]
        monkeypatch.setattr(module, "end_process", ended.set)
        monkeypatch.setattr(module, "HUNG_S", 0.3)
        worker.compute.submit(lambda: over.wait(60))  # type: ignore[arg-type,return-value]
        await until(lambda: worker.compute.in_job_s > 1.0, "nothing is computed")
        assert not ended.is_set(), "a CPU may take its time"
        worker.device = torch.device("cuda:0")
        async with asyncio.timeout(60):
            await ended.wait()
        over.set()
        worker.device = torch.device("cpu")
        await until(lambda: worker.compute.in_job_s == 0.0, "the job goes on")


async def test_an_error_inside_a_shard_is_told_to_the_worker_that_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of([8], odd_experts_on("w1"))
    async with workers_here(plan) as workers, raw(plan) as client:
        session = await client.open(64)
        once = step(session, TEXT, 0, 10)
        current = workers["w1"].epochs.current
        assert current is not None
        whole = current.experts
        current.experts = LocalExperts(dict.fromkeys(whole.weights))  # type: ignore[misc]
        status = await client.fails(once)
        assert status.code == pb.LOST
        assert "w1" in status.message
        current.experts = whole
        assert await client.ask(once)


def test_a_thread_that_cannot_go_on_says_so_once_since_a_worker_without_it_would_answer_pings_and_compute_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = threading.Event()
    compute = Compute(1, "test", failed.set)
    with caplog.at_level(logging.CRITICAL):
        compute.submit(lambda: [][0])
        assert failed.wait(60)
    compute.stop()
