"""Promise 2, over real sockets: where Blocks and experts sit changes no bit of any Candidates."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from plans import each_others_experts, free_addresses, odd_experts_on, plan_of
from raw_client import RawClient, bits, raw, step
from swarm_processes import processes, workers_here
from wider_plans import with_copies

from swarm.plan import Plan
from swarm.wire.v1 import stage_pb2 as pb

LAYOUTS = {
    "two stages": ([3, 8], ()),
    "eight stages": (list(range(1, 9)), ()),
    "odd experts in another worker": ([8], odd_experts_on("w1")),
    "every expert in two others": ([8], [("w1", b, (0, 1, 2)) for b in range(8)] + [("w2", b, (3, 4, 5, 6, 7)) for b in range(8)]),
    "two workers with each other's experts": ([5, 8], each_others_experts("w0", "w1", 5)),
}
CALLS = [{0: 37}, {0: 1}, {1: 16, 0: 1}, {0: 1, 1: 1}, {2: 40, 1: 9, 0: 3}, {2: 1}, {0: 1, 1: 1, 2: 1}, {0: 100, 2: 1}]
"""Micro-batches: rows of each Session. Prefill, chunks behind a history, decode, and mixes of all three."""


async def a_conversation(client: RawClient) -> list[list[bytes]]:
    """What the last Stage answers to `CALLS`: 64 Candidates, both logsumexps, named logits and the whole row, as bytes."""
    draw = random.Random(5)
    texts = [[draw.randrange(3, 3000) for _ in range(200)] for _ in range(3)]
    sessions = [await client.open() for _ in texts]
    at, answers = [0, 0, 0], []
    for call in CALLS:
        steps = []
        for i, rows in call.items():
            asked = 2 if rows % 2 == 0 else 1
            ask = pb.Ask(rows=asked, k=64, temperature=0.7, named=[7, 11] * asked, named_per_row=2, whole_row=asked == 1)
            steps.append(step(sessions[i], texts[i], at[i], at[i] + rows, ask=ask))
            at[i] += rows
        answers += await client.ask(*steps)
    return bits(*answers)


async def answers_of(plan: Plan) -> list[list[bytes]]:
    async with workers_here(plan) as workers, raw(plan) as client:
        answers = await a_conversation(client)
        for stage in plan.routes[0].stages:
            assert workers[stage.worker].status().micro_batches == len(CALLS), "the micro-batches were other ones"
        return answers


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
async def test_one_two_and_eight_stages_and_remote_experts_answer_the_same_bits(dtype: str) -> None:
    want = await answers_of(plan_of([8], dtype=dtype, in_flight=1))
    assert all(len(answer[0]) > 3072 * 4 for answer in want if len(answer) == 1), "the whole row is not there"
    for name, (ends, shards) in LAYOUTS.items():
        got = await answers_of(plan_of(ends, shards, dtype=dtype, in_flight=1))
        assert got == want, name


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
async def test_stages_and_experts_in_processes_of_their_own_answer_the_same_bits(dtype: str, tmp_path: Path) -> None:
    want = await answers_of(plan_of([8], dtype=dtype, in_flight=1))
    plan = plan_of([5, 8], each_others_experts("w0", "w1", 5), dtype=dtype, in_flight=1)
    with processes(plan, tmp_path):
        async with raw(plan) as client:
            assert await a_conversation(client) == want


COPIES = {
    "copies of all experts": ([8], (), [("w1", b, range(8)) for b in range(8)]),
    "copies on each other's workers": ([5, 8], (), [("w1", b, range(8)) for b in range(5)] + [("w0", b, (1, 2)) for b in (5, 7)]),
    "copies beside shards on the same worker": ([8], odd_experts_on("w1"), [("w1", b, (0, 4)) for b in range(8)]),
    "copies on two others": ([8], (), [("w1", b, (0, 1, 2, 3)) for b in range(8)] + [("w2", b, (5, 6, 7)) for b in range(8)]),
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
async def test_copies_of_experts_answer_the_same_bits_wherever_they_are_computed(dtype: str) -> None:
    want = await answers_of(plan_of([8], dtype=dtype, in_flight=1))
    for name, (ends, shards, copies) in COPIES.items():
        addresses = free_addresses(["w0", "w1", "w2"])
        everyone = plan_of([1, 2, 8], names=["w0", "w1", "w2"], addresses=addresses, dtype=dtype)
        plan = replace(plan_of(ends, shards, addresses=addresses, dtype=dtype, in_flight=1), workers=everyone.workers)
        got = await answers_of(with_copies(plan, copies))
        assert got == want, name
