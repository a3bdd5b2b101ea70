"""Real Workers on one card, each with its share, over real sockets, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plans import odd_experts_on, plan_of
from questions import answer, ask_all, questions
from raw_client import raw
from swarm_processes import InMemory, processes, status_at, workers_here

from cluster.hardware.detect import GPU_MARGIN_BYTES
from swarm.client.client import open_client
from swarm.config import Sizes
from swarm.plan import MAX_ROWS, Plan
from swarm.wire.credentials import Credentials
from swarm.worker.measure import Wanted, at_once

pytestmark = pytest.mark.cuda
SPLITS = {
    "one Worker": ([8], ()),
    "three Workers": ([3, 6, 8], ()),
    "odd experts in another Worker": ([8], odd_experts_on("w1")),
}


def on(card: str, plan: Plan) -> Plan:
    return replace(plan, workers=tuple(replace(w, device=card, threads=0) for w in plan.workers))


async def test_greedy_answers_of_three_processes_on_one_card_are_the_references(card: str, tmp_path: Path) -> None:
    plan, asked = on(card, plan_of([3, 6, 8], sessions=8, context=1280)), questions("eval")[:40]
    with processes(plan, tmp_path):
        async with open_client(InMemory(plan), Credentials()) as client:
            assert await ask_all(client, asked, at_once=8) == [q.answer for q in asked]
        for worker in plan.workers:
            status = status_at(worker.address)
            assert status is not None
            assert status.weights_bytes + status.kv_bytes <= worker.memory_bytes


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int4"])
async def test_where_blocks_and_experts_sit_changes_no_bit(card: str, dtype: str) -> None:
    from test_bits import a_conversation

    answers = {}
    for name, (ends, shards) in SPLITS.items():
        plan = on(card, plan_of(ends, shards, dtype=dtype, in_flight=1))
        async with workers_here(plan), raw(plan) as client:
            answers[name] = await a_conversation(client)
    assert answers["three Workers"] == answers["one Worker"]
    assert answers["odd experts in another Worker"] == answers["one Worker"]


async def test_an_answer_of_a_card_stays_within_what_the_plan_gave(card: str) -> None:
    plan = on(card, plan_of([8], sessions=8, context=1280))
    workspace_bytes = Sizes(plan.model.config, plan.model.dtype).workspace(MAX_ROWS, last=True, context=1280)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        question, status = questions("stories")[0], workers["w0"].status()
        assert await answer(client.conversation(), question.prompt, 20) == question.answer[:20]
        # Beside them only what is left free on every card: cuBLAS's workspaces, recorded Steps.
        given = status.weights_bytes + status.kv_bytes + workspace_bytes + GPU_MARGIN_BYTES
        assert torch.cuda.max_memory_allocated() - before <= given


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "int8", "int4"])
def test_a_card_is_measured(card: str, dtype: str) -> None:
    figures = at_once(Wanted(dtype=dtype, hidden=1024, ffn=3584), torch.device(card), torch.cuda.mem_get_info()[0])
    print(dtype, figures)
    assert len(figures.products) > 3 and all(0 < seconds < 1e-6 for _, seconds in figures.products)
