"""What a Worker counts while it serves: its one-row work, and what its routers choose."""

from __future__ import annotations

import asyncio

from plans import free_addresses, odd_experts_on, plan_of
from raw_client import RawClient, raw, step
from swarm_processes import prepare, until, workers_here

from swarm.config import Sizes
from swarm.plan import Plan
from swarm.reads import row_bytes
from swarm.worker.worker import Worker

TEXT = list(range(200, 230))
PROMPT, NEW = 10, 5


async def talk(client: RawClient, new: int = NEW) -> None:
    """A prompt, then one token after another."""
    session = await client.open(64)
    await client.ask(step(session, TEXT, 0, PROMPT))
    for at in range(PROMPT, PROMPT + new):
        await client.ask(step(session, TEXT, at, at + 1))
    await client.release(session)


def choices(worker: Worker) -> dict[int, list[int]]:
    return {c.block: list(c.counts) for c in worker.status().choices}


async def settled(worker: Worker, micro_batches: int) -> None:
    await until(lambda: worker.status().micro_batches == micro_batches, "the books are not kept")


async def test_one_row_micro_batches_are_counted_with_their_seconds_and_bytes_and_prompts_are_not() -> None:
    plan = plan_of([3, 8])
    async with workers_here(plan) as workers, raw(plan) as client:
        await talk(client)
        for name, worker in workers.items():
            await settled(worker, 1 + NEW)
            steps = worker.status().steps
            assert steps.count == NEW
            assert 0 < steps.seconds < worker.compute.busy_s
            blocks = plan.stage_of(name).blocks  # type: ignore[union-attr]
            kv = Sizes(plan.model.config, "fp32").kv(1) * len(blocks) * sum(range(PROMPT + 1, PROMPT + NEW + 1))
            assert steps.bytes == NEW * row_bytes(plan, name, 0) + kv


def test_a_row_reads_cores_two_experts_of_each_block_and_the_head_of_a_last_stage() -> None:
    plan, shared = plan_of([3, 8]), plan_of([3, 8], odd_experts_on("w2"))
    sizes = Sizes(plan.model.config, "fp32")
    assert row_bytes(plan, "w0", 0) == 3 * (sizes.block_core + 2 * sizes.expert)
    assert row_bytes(plan, "w1", 0) == 5 * (sizes.block_core + 2 * sizes.expert) + sizes.head
    assert row_bytes(shared, "w0", 0) == 3 * (sizes.block_core + sizes.expert)
    assert row_bytes(shared, "w2", 0) == 0


async def test_a_holder_of_experts_counts_the_rows_that_it_computes_for_others() -> None:
    plan = plan_of([8], odd_experts_on("w1"))
    expert = Sizes(plan.model.config, "fp32").expert
    async with workers_here(plan) as workers, raw(plan) as client:
        await talk(client)
        await settled(workers["w0"], 1 + NEW)
        owner, holder = workers["w0"].status(), workers["w1"].status()
        asked = {b: sum(counts[1::2]) for b, counts in choices(workers["w0"]).items()}
        assert (owner.steps.count, owner.shard_steps.count) == (NEW, 0)
        assert holder.steps.count == 0
        assert 0 < holder.shard_steps.count <= 8 * NEW
        assert holder.shard_steps.seconds > 0
        assert holder.shard_steps.bytes % expert == 0
        assert 0 < holder.shard_steps.bytes <= sum(asked.values()) * expert
        assert not holder.choices


async def test_every_row_of_every_block_chooses_two_experts_wherever_the_blocks_and_experts_are() -> None:
    found = []
    for plan in (plan_of([8]), plan_of([3, 8]), plan_of([3, 8], odd_experts_on("w0", range(3, 8)))):
        async with workers_here(plan) as workers, raw(plan) as client:
            await talk(client)
            for worker in workers.values():
                await settled(worker, 1 + NEW)
            found.append({block: counts for worker in workers.values() for block, counts in choices(worker).items()})
    assert all(sum(counts) == 2 * (PROMPT + NEW) for counts in found[0].values())
    assert sorted(found[0]) == list(range(8))
    assert found[0] == found[1] == found[2]


async def test_counts_stay_with_a_block_that_stays_and_end_with_one_that_goes() -> None:
    addresses = free_addresses(["w0", "w1"])
    plans = [plan_of([end, 8], addresses=addresses, epoch=epoch) for epoch, end in enumerate((6, 3, 6), 1)]
    async with workers_here(plans[0]) as workers:
        async with raw(plans[0]) as client:
            await talk(client)
        for worker in workers.values():
            await settled(worker, 1 + NEW)
        before = [choices(workers["w0"]), choices(workers["w1"])]
        await change(workers, plans[0], plans[1])
        assert choices(workers["w0"]) == {b: before[0][b] for b in range(3)}
        assert choices(workers["w1"]) == {b: before[1].get(b, [0] * 8) for b in range(3, 8)}
        async with raw(plans[1]) as client:
            await talk(client)
        for worker in workers.values():
            await settled(worker, 2 + 2 * NEW)
        assert choices(workers["w0"]) == {b: [2 * n for n in before[0][b]] for b in range(3)}
        await change(workers, plans[1], plans[2])
        assert all(sum(counts) == 0 for b, counts in choices(workers["w0"]).items() if b >= 3)
        assert all(sum(counts) > 0 for b, counts in choices(workers["w0"]).items() if b < 3)


async def change(workers: dict[str, Worker], before: Plan, after: Plan) -> None:
    await prepare(workers, after)
    for worker in workers.values():
        worker.commit(after.epoch)
    await asyncio.gather(*(worker.drain(before.epoch, 5.0) for worker in workers.values()))
