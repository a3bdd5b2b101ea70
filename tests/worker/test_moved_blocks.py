"""What a new Plan loads, by its bytes: Blocks that stay, and those stood by for, are loaded once, by Workers that go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plans import free_addresses, nano
from questions import answer, questions
from swarm_processes import OPEN, InMemory, processes, status_at, workers_here
from wider_plans import routes_plan

from swarm.client.client import open_client
from swarm.config import Sizes
from swarm.plan import Plan, Standby
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import worker_pb2 as pb
from swarm.wire.v1.worker_pb2_grpc import WorkerServiceStub

STORY = questions("stories")[0]
SIZES = Sizes(nano().config, "fp32")
WHOLE = SIZES.embedding + SIZES.head + 8 * SIZES.block


@asynccontextmanager
async def control(address: str) -> AsyncIterator[WorkerServiceStub]:
    channel = OPEN.channel(address)
    try:
        yield WorkerServiceStub(channel)
    finally:
        await channel.close(None)


async def prepared(plan: Plan, name: str) -> int:
    """Have a Worker load what it lacks for a Plan; the bytes that it reported as the total."""
    total = 0
    async with control(plan.worker(name).address) as worker:
        async for progress in worker.Prepare(pb.PrepareRequest(plan=plan.to_json(), name=name)):
            total = progress.total_bytes
            assert progress.loaded_bytes <= total
    return total


async def changed(plan: Plan) -> dict[str, int]:
    """Prepare and Commit a Plan everywhere, drain the one before; the bytes that each Worker loaded."""
    loaded = {w.name: await prepared(plan, w.name) for w in plan.workers}
    for step in ("Commit", "Drain"):
        for each in plan.workers:
            async with control(each.address) as worker:
                epoch = plan.epoch if step == "Commit" else plan.epoch - 1
                await getattr(worker, step)(pb.EpochRequest(epoch=epoch, deadline_s=5.0))
    return loaded


def pids_and_bytes(plan: Plan) -> dict[str, tuple[int, int]]:
    statuses = {w.name: status_at(w.address) for w in plan.workers}
    return {name: (status.pid, status.weights_bytes) for name, status in statuses.items() if status is not None}


async def test_a_boundary_that_moves_by_a_block_loads_that_block_and_a_route_that_is_added_only_its_own(tmp_path: Path) -> None:
    addresses = free_addresses(["a0", "a1", "b0"])
    first = routes_plan([("a0", 4), ("a1", 8)], spare=["b0"], addresses=addresses)
    moved = routes_plan([("a0", 5), ("a1", 8)], spare=["b0"], addresses=addresses, epoch=2)
    two = routes_plan([("a0", 5), ("a1", 8)], [("b0", 8)], addresses=addresses, epoch=3)
    with processes(first, tmp_path) as swarm:
        begun = {w.name: swarm.pid(w.name) for w in first.workers}
        source = InMemory(first)
        async with open_client(source, Credentials()) as client:
            talk = client.conversation()
            for plan, loads, tokens in ((moved, {"a0": SIZES.block}, 20), (two, {"b0": WHOLE}, 40)):
                assert await answer(talk, STORY.prompt, tokens) == STORY.answer[:tokens]
                assert await changed(plan) == {"a0": 0, "a1": 0, "b0": 0} | loads
                await source.switch(plan)
                planned = {w.name: (begun[w.name], w.weights_bytes) for w in plan.workers}
                assert pids_and_bytes(plan) == planned
            assert await answer(talk, STORY.prompt, len(STORY.answer)) == STORY.answer
            await talk.close()


async def test_blocks_that_a_worker_stood_by_for_become_its_stage_without_a_byte_loaded(tmp_path: Path) -> None:
    addresses = free_addresses(["w0", "w1", "w2"])
    standby = routes_plan([("w0", 2), ("w1", 6), ("w2", 8)], standbys=[Standby("w0", 2, 6)], addresses=addresses)
    served = routes_plan([("w0", 6), ("w2", 8)], addresses=addresses, epoch=2)
    with processes(standby, tmp_path) as swarm:
        source = InMemory(standby)
        async with open_client(source, Credentials()) as client:
            talk = client.conversation()
            assert await answer(talk, STORY.prompt, 20) == STORY.answer[:20]
            swarm.kill("w1")
            assert await changed(served) == {"w0": 0, "w2": 0}
            await source.switch(served)
            assert await answer(talk, STORY.prompt, len(STORY.answer)) == STORY.answer
            await talk.close()


async def test_what_serves_is_loaded_before_what_is_stood_by_for_and_standing_by_takes_no_kv() -> None:
    plan = routes_plan([("w0", 3), ("w1", 8)], standbys=[Standby("w0", 5, 8)])
    async with workers_here(plan, commit=False) as workers:
        seen = [loaded async for loaded, _ in workers["w0"].prepare(plan, "w0")]
        serves = SIZES.embedding + 3 * SIZES.block
        assert serves in seen
        assert seen[-1] == serves + 3 * SIZES.block == workers["w0"].status().weights_bytes
        assert workers["w0"].status().kv_bytes == 3 * SIZES.kv(plan.kv_pages * plan.page_positions)


async def test_a_worker_that_only_stands_by_serves_nobody_and_gives_back_what_it_need_not_hold_any_more() -> None:
    plan = routes_plan([("w0", 8)], spare=["w1"], standbys=[Standby("w1", 0, 4)])
    async with workers_here(plan) as workers:
        worker = workers["w1"]
        assert worker.status().weights_bytes == 4 * SIZES.block
        assert (worker.status().first, worker.status().end) == (0, 0)
        fewer = routes_plan([("w0", 8)], spare=["w1"], standbys=[Standby("w1", 2, 3)], epoch=2)
        async for _ in worker.prepare(fewer, "w1"):
            raise AssertionError("something was loaded")
        worker.commit(2)
        await worker.drain(1, 5.0)
        assert worker.status().weights_bytes == SIZES.block
