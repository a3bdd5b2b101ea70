"""Models of other families on Workers, over real sockets: their logits, wherever Blocks and experts are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import families
import pytest
import torch
from plans import plan_of
from raw_client import raw, step
from swarm_processes import workers_here

from swarm.plan import Plan
from swarm.weights.describe import describe
from swarm.wire.v1 import stage_pb2 as pb

TOKENS = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(3)).tolist()
CHUNKS = (20, 1, 18, 1)


async def logits(plan: Plan) -> torch.Tensor:
    """Of the last token of each of `CHUNKS`, [4, V]."""
    rows = []
    async with workers_here(plan) as workers, raw(plan) as client:
        session, at = await client.open(), 0
        for count in CHUNKS:
            [answer] = await client.ask(step(session, TOKENS, at, at + count, ask=pb.Ask(rows=1, k=1, whole_row=True)))
            rows.append(torch.frombuffer(bytearray(answer.rows[0].row), dtype=torch.float32))
            at += count
        for name, worker in workers.items():
            assert worker.status().weights_bytes <= plan.worker(name).weights_bytes
    return torch.stack(rows)


@pytest.mark.parametrize("family", ["llama_3_1", "qwen1_5_moe", "deepseek_moe", "gpt_oss", "dbrx"])
async def test_a_family_answers_the_same_bits_on_one_worker_and_on_three_with_experts_elsewhere(
    family: str, tmp_path: Path
) -> None:
    oracle = families.write(family, tmp_path)
    model = describe(str(tmp_path), "fp32")
    experts = range(0, model.config.num_experts, 2)
    shards = [("w2", 0, experts), ("w2", 1, experts), ("w0", 3, experts)]
    want = await logits(plan_of([4], model=model, in_flight=1))
    at = [sum(CHUNKS[: i + 1]) - 1 for i in range(len(CHUNKS))]
    torch.testing.assert_close(want, oracle(TOKENS)[at], atol=1e-4, rtol=0)
    assert torch.equal(await logits(plan_of([1, 3, 4], shards, model=model, in_flight=1)), want)


async def test_a_dense_block_has_no_experts_to_load_or_ask_for(tmp_path: Path) -> None:
    families.write("deepseek_moe", tmp_path)
    model = describe(str(tmp_path), "fp32")
    plan = plan_of([4], [("w1", 0, range(6))], model=model)
    assert plan.local_experts("w0", 0) == plan.local_experts("w1", 0) == ()
    assert plan.local_experts("w0", 1) == tuple(range(6))
    assert plan.worker("w1").weights_bytes == 0


async def test_keys_and_values_in_int8_are_what_the_plan_says_and_change_little(tmp_path: Path) -> None:
    oracle = families.write("qwen3", tmp_path)
    model = replace(describe(str(tmp_path), "fp32"), kv="int8")
    plan = Plan.from_json(plan_of([2, 4], model=model, in_flight=1).to_json())
    assert plan.model.kv == "int8"
    got = await logits(plan)
    at = [sum(CHUNKS[: i + 1]) - 1 for i in range(len(CHUNKS))]
    error = (got - oracle(TOKENS)[at]).abs()
    assert 1e-4 < error.max() < 0.2
    async with workers_here(plan) as workers:
        for stage in plan.routes[0].stages:
            kv = len(stage.blocks) * model.sizes.kv(plan.kv_pages * plan.page_positions)
            assert workers[stage.worker].status().kv_bytes == kv
