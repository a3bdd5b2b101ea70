"""Two Workers that hold each other's shards never wait in a circle (promise 4), and change no token."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from typing import Any

import pytest
from plans import each_others_experts, odd_experts_on, plan_of
from raw_client import RawClient, raw, step
from swarm_processes import until, workers_here

from swarm.plan import Plan
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.experts import RemoteExperts

SESSIONS, NEW_TOKENS = 12, 12
GREEDY = pb.Ask(rows=1, k=1)


async def greedy(client: RawClient, seed: int) -> list[int]:
    """A prompt in two pipelined chunks, then the best token, again and again."""
    draw = random.Random(seed)
    text = [draw.randrange(3, 3000) for _ in range(60 + seed)]
    session = await client.open(128)
    start = len(text)
    first, last = step(session, text, 0, 50, ask=pb.Ask()), step(session, text, 50, start, ask=GREEDY)
    [answer] = [a for a in await ask_pipelined(client, first, last) if a.rows]
    for _ in range(NEW_TOKENS):
        text.append(answer.rows[0].ids[0])
        [answer] = await client.ask(step(session, text, len(text) - 1, ask=GREEDY))
    await client.release(session)
    return text[start:]


async def ask_pipelined(client: RawClient, *steps: pb.StepHeader) -> list[pb.StepAnswer]:
    await client.send(*steps[:-1])
    return await client.ask(steps[-1])


async def all_at_once(plan: Plan) -> list[list[int]]:
    async with workers_here(plan), raw(plan) as client, asyncio.timeout(60):
        return await asyncio.gather(*(greedy(client, seed) for seed in range(SESSIONS)))


@pytest.mark.parametrize("in_flight", [1, 0])
async def test_workers_with_each_others_experts_never_stall_under_load_and_change_no_token(in_flight: int) -> None:
    want = await all_at_once(plan_of([8], sessions=SESSIONS, in_flight=in_flight))
    got = await all_at_once(plan_of([4, 8], each_others_experts("w0", "w1", 4), sessions=SESSIONS, in_flight=in_flight))
    assert got == want
    assert len({tuple(tokens) for tokens in want}) > 1


async def test_a_worker_with_only_shards_that_is_gone_fails_the_step_with_its_name_and_serves_again_when_it_is_back() -> None:
    plan = plan_of([8], [("w1", b, range(8)) for b in range(8)])
    async with workers_here(plan, only={"w0"}), raw(plan) as client:
        session = await client.open(64)
        lost = step(session, list(range(50, 70)), 0, 20)
        status = await client.fails(lost)
        assert status.code == pb.LOST
        assert status.message.startswith("worker w1 (expert shards of 8 blocks) is gone, whose experts are needed (")
        async with workers_here(plan, only={"w1"}):
            answers = await asyncio.wait_for(client_retries(client, lost), 60)
            assert answers[0].rows[0].ids


async def client_retries(client: RawClient, lost: pb.StepHeader) -> list[pb.StepAnswer]:
    """Send the same Step until it is answered."""
    while True:
        seen = len(client.came)
        await client.send(lost)
        found = await client.next(lost, seen)
        if isinstance(found, pb.StepAnswer):
            return [found]
        await asyncio.sleep(0.05)  # between two tries, as clients do


async def test_a_worker_with_only_shards_serves_them_until_what_its_owner_has_at_hand_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of([8], odd_experts_on("w1"))
    middle, go_on = threading.Event(), threading.Event()
    really = RemoteExperts.ask

    def slowly(remote: RemoteExperts, block: int, *rest: Any) -> Any:
        if block == 4:
            middle.set()
            assert go_on.wait(60)
        return really(remote, block, *rest)

    monkeypatch.setattr(RemoteExperts, "ask", slowly)
    async with workers_here(plan) as workers, raw(plan) as client:
        at_hand = step(await client.open(64), list(range(50, 70)), 0, 20)
        await client.send(at_hand)
        await until(middle.is_set, "nothing is computed")
        draining = [asyncio.create_task(worker.drain(1, 15.0)) for worker in workers.values()]
        behind = step(os.urandom(16), list(range(50, 70)), 0, 20)
        assert (await client.fails(behind)).code == pb.MOVED
        assert not any(task.done() for task in draining)
        go_on.set()
        assert isinstance(await client.next(at_hand), pb.StepAnswer)
        async with asyncio.timeout(60):
            await asyncio.gather(*draining)
        assert [worker.status().weights_bytes for worker in workers.values()] == [0, 0]


async def test_a_step_that_needs_a_shard_of_a_retired_epoch_is_told_that_the_plan_changed() -> None:
    plan = plan_of([8], odd_experts_on("w1"))
    async with workers_here(plan) as workers, raw(plan) as client:
        session = await client.open(64)
        await workers["w1"].drain(1, 5.0)
        status = await client.fails(step(session, list(range(50, 70)), 0, 20))
        assert (status.code, status.epoch, status.worker) == (pb.MOVED, 1, "w1")
