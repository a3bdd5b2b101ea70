"""What a Worker says of its Device, and that it says it only while nobody needs the Device."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import torch
from plans import plan_of
from raw_client import raw, step
from swarm_processes import OPEN, until, workers_here

from cluster.planner.costs import KERNELS_CORE, KERNELS_EXPERT
from swarm.errors import DeviceError, Full, Refused
from swarm.model.memory import num_bytes
from swarm.wire.status import from_rpc
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub
from swarm.worker import measure as measure_file
from swarm.worker.measure import ROWS, Wanted, at_once, dtypes_of, measuring
from swarm.worker.measure_turns import _held, measure
from swarm.worker.quota import pauses
from swarm.worker.worker import Worker

CPU = torch.device("cpu")
SMALL = {"dtype": "fp32", "hidden": 64, "ffn": 128, "budget_s": 0.5}


@asynccontextmanager
async def one_worker() -> AsyncIterator[tuple[Worker, WorkerServiceStub]]:
    plan = plan_of([8])
    async with workers_here(plan) as workers, OPEN.channel(plan.workers[0].address) as channel:
        yield workers["w0"], WorkerServiceStub(channel)


def test_the_planner_counts_the_kernels_that_a_block_is_divided_by() -> None:
    assert (Wanted.kernels_core, Wanted.kernels_expert) == (KERNELS_CORE, KERNELS_EXPERT)


async def test_a_worker_answers_products_at_growing_rows_the_time_to_start_a_kernel_and_its_memory() -> None:
    async with one_worker() as (worker, stub):
        rows, budget_s = [1], 1.0
        while len(rows) <= 2:  # as many as there is time for: a busy machine needs more
            reply = await stub.Measure(pb.MeasureRequest(**SMALL | {"budget_s": budget_s}, patience_s=30))
            rows, budget_s = [p.rows for p in reply.products], 4 * budget_s
        assert rows == list(ROWS)[: len(rows)]
        assert all(1e-13 < p.seconds_a_byte < 1e-5 for p in reply.products)
        assert 1e-7 < reply.start_s < 1e-2 and 1e-7 < reply.several_start_s < 1e-2
        assert reply.free_bytes == worker.memory_bytes
        assert set(reply.dtypes) == {"fp32", "fp16", "bf16"}


async def test_measuring_keeps_to_its_budget_and_gives_the_thread_back_in_between() -> None:
    async with one_worker() as (worker, stub):
        asked = asyncio.ensure_future(
            stub.Measure(pb.MeasureRequest(dtype="fp32", hidden=512, ffn=1024, budget_s=1, patience_s=30))
        )
        waits = []
        while not asked.done():
            began, served = time.monotonic(), threading.Event()
            worker.compute.submit_shard(served.set)
            await until(served.is_set, "no turn")
            waits.append(time.monotonic() - began)
        assert (await asked).took_s < 10  # a busy machine's; the budget is 1
        assert len(waits) > 5
        assert sorted(waits)[len(waits) // 2] < 0.5


async def test_a_worker_that_serves_is_not_measured_unless_it_falls_idle_in_time() -> None:
    async with one_worker() as (worker, stub):
        plan = worker.epochs.current.plan  # type: ignore[union-attr]
        async with raw(plan) as client:
            session = await client.open(64)
            await client.ask(step(session, [5, 6, 7], 0, 1))
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Measure(pb.MeasureRequest(**SMALL))
            assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert isinstance(told := from_rpc(raised.value, "w0"), Full)
            assert "serves sessions" in str(told)
            assert (await stub.Measure(pb.MeasureRequest(**SMALL, patience_s=10))).products


async def test_a_worker_that_serves_all_the_time_is_measured_between_its_steps_where_that_is_asked() -> None:
    async with one_worker() as (worker, stub):
        plan = worker.epochs.current.plan  # type: ignore[union-attr]
        async with raw(plan) as client:
            session = await client.open(64)
            await client.ask(step(session, [5, 6, 7], 0, 1))
            asked = asyncio.ensure_future(stub.Measure(pb.MeasureRequest(**SMALL, beside=True)))
            await until(worker.ordering.locked, "measuring does not start")
            assert await client.ask(step(session, [5, 6, 7], 1, 3))
            assert (await asked).products


async def test_measuring_ends_when_somebody_asks_for_a_step_and_the_step_is_served() -> None:
    async with one_worker() as (worker, _):
        plan = worker.epochs.current.plan  # type: ignore[union-attr]
        async with raw(plan) as client:
            session = await client.open(64)
            request = pb.MeasureRequest(dtype="fp32", hidden=512, ffn=1024, budget_s=20, patience_s=30)
            asked = asyncio.ensure_future(measure(worker, request))
            await until(worker.ordering.locked, "measuring does not start")
            assert await client.ask(step(session, [5, 6, 7], 0, 1))
            with pytest.raises(Full, match="began to serve"):
                await asked


async def test_two_do_not_measure_at_once_and_one_who_gave_up_is_no_hindrance() -> None:
    async with one_worker() as (worker, _):
        long = pb.MeasureRequest(dtype="fp32", hidden=64, ffn=128, budget_s=20, patience_s=30)
        first = asyncio.ensure_future(measure(worker, long))
        await until(worker.ordering.locked, "measuring does not start")
        with pytest.raises(Full, match="being measured"):
            await measure(worker, pb.MeasureRequest(**SMALL))
        first.cancel()
        await asyncio.wait({first})
        assert (await measure(worker, pb.MeasureRequest(**SMALL, patience_s=30))).products


async def test_memory_is_given_back_after_measuring_and_after_giving_up() -> None:
    async with one_worker() as (worker, _):
        held = weakref.WeakSet[measure_file.Products]()
        with pytest.MonkeyPatch.context() as patch:
            real = measure_file.Products.run

            def run(self: measure_file.Products, rows: int, guess: float) -> object:
                held.add(self)
                return real(self, rows, guess)

            patch.setattr(measure_file.Products, "run", run)
            await measure(worker, pb.MeasureRequest(**SMALL, patience_s=30))
            asked = asyncio.ensure_future(measure(worker, pb.MeasureRequest(**SMALL | {"budget_s": 20})))
            await until(lambda: len(held) > 0, "measuring does not start")
            asked.cancel()
            await asyncio.wait({asked})
        gc.collect()
        assert not held


@pytest.mark.parametrize("wrong", [{"dtype": "int3"}, {"hidden": 2**30}, {"ffn": 2**30}], ids=str)
async def test_a_measurement_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    async with one_worker() as (worker, _):
        with pytest.raises(Refused, match="cannot measure"):
            await measure(worker, pb.MeasureRequest(**(SMALL | wrong)))  # type: ignore[arg-type]


async def test_a_device_that_runs_out_while_it_is_measured_says_so_and_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with one_worker() as (worker, _):

        def runs_out(*_: object) -> None:
            monkeypatch.undo()
            raise MemoryError

        monkeypatch.setattr(measure_file.Products, "run", runs_out)
        with pytest.raises(DeviceError, match="ran out of memory"):
            await measure(worker, pb.MeasureRequest(**SMALL, patience_s=30))
        assert (await measure(worker, pb.MeasureRequest(**SMALL, patience_s=30))).products


def test_a_dtype_without_units_of_its_own_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert set(dtypes_of(torch.device("cuda:0"))) == {"fp16", "fp32"}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    assert "bf16" in dtypes_of(torch.device("cuda:0"))


def test_others_who_compute_here_meanwhile_do_not_count_and_a_quota_does() -> None:
    calm, crowded = [1e-6, 1.1e-6, 1e-6], [9e-4, 8e-4, 1e-6, 9e-4]
    assert measure_file._without_others([crowded, calm, crowded, crowded]) == pytest.approx(1e-6)
    paused = [1e-6] * 9 + [11e-6]  # a pause in each round, which a quota makes
    assert measure_file._without_others([paused] * 3) == pytest.approx(1e-6)
    assert measure_file._with_pauses([paused] * 3) == pytest.approx(2e-6)


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.stat": "nr_periods 9\nnr_throttled 4\n"}, 4),
        ("4:memory:/x\n3:cpu,cpuacct:/x\n", {"sys/fs/cgroup/cpu,cpuacct/x/cpu.stat": "nr_periods 9\nnr_throttled 7\n"}, 7),
        ("0::/\n", {"sys/fs/cgroup/cpu.stat": "usage_usec 12\n"}, 0),
        ("", {}, 0),
    ],
)
def test_pauses_of_a_cpu_quota_are_counted_as_the_kernel_tells_them(
    groups: str, files: dict[str, str], found: int, tmp_path: Path
) -> None:
    for name, text in ({"proc/self/cgroup": groups} | files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert pauses(tmp_path) == found


def test_little_memory_makes_a_rough_measurement_and_no_failure() -> None:
    wanted = Wanted("fp32", 4096, 14336, budget_s=0.3)
    figures = at_once(wanted, CPU, room_bytes=0)
    assert figures.products[0][0] == 1
    assert figures.start_s > 0


def test_weights_are_read_in_turn_and_fill_no_more_than_half_of_what_is_free() -> None:
    with torch.inference_mode():
        turns = measure_file.Products.filling(256, 512, (), "fp32", CPU, 64 * 2**20, time.perf_counter() + 60)
        products = last(turns)
        size = num_bytes(*products.weights)
        assert 30 * 2**20 <= size <= 33 * 2**20
        assert {tuple(w.shape) for w in products.weights} == {(1024, 256), (256, 512)}


def test_a_full_device_is_measured_with_the_weights_that_fill_it() -> None:
    with torch.inference_mode():
        held = [torch.ones(1024, 1024) for _ in range(5)]
        products = last(measure_file.Products.filling(1024, 512, held, "fp32", CPU, 0, time.perf_counter() + 60))
    assert len(products.weights) == 5
    assert all(a is b for a, b in zip(products.weights, held, strict=True))


async def test_a_worker_measures_with_the_experts_that_it_holds() -> None:
    async with one_worker() as (worker, _):
        config = worker.epochs.current.config  # type: ignore[union-attr]
        held = _held(worker, Wanted("fp32", config.hidden, config.ffn))
        assert len(held) == 2 * 8 * 8
        assert not _held(worker, Wanted("bf16", config.hidden, config.ffn))
        assert not _held(worker, Wanted("fp32", config.hidden, config.ffn + 1))


def last(turns: Generator[None, None, measure_file.Products]) -> measure_file.Products:
    """Take all turns."""
    while True:
        try:
            next(turns)
        except StopIteration as done:
            found: measure_file.Products = done.value
            return found


def test_a_turn_on_the_compute_thread_is_short() -> None:
    turns = measuring(Wanted("fp32", 1024, 2048, budget_s=1.0), CPU, 2**30)
    taken = []
    with torch.inference_mode():
        while True:
            began = time.thread_time()  # what it takes by itself: this machine may be busy
            if next(turns, "over") is not None:
                break
            taken.append(time.thread_time() - began)
    assert sorted(taken)[int(0.9 * len(taken))] < 0.15  # aims at 0.03


def test_the_command_prints_one_line_of_json_without_a_swarm() -> None:
    command = [sys.executable, "-m", "swarm.worker.measure", "--device", "cpu", "--threads", "1", "--dtype", "bf16"]
    command += ["--hidden", "64", "--ffn", "128", "--budget-s", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    said = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert said["products"][0][0] == 1
    assert said["start_s"] > 0 and said["several_start_s"] > 0
    assert said["free_bytes"] > 0
    assert "bf16" in said["dtypes"]
