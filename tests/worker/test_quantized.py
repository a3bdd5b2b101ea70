"""The embedded model in few bits, over real sockets: what it still answers, and that placement changes nothing."""

from __future__ import annotations

import json

import pytest
from plans import plan_of
from questions import DATA, ask_all, questions
from swarm_processes import InMemory, workers_here

from swarm.client.client import open_client
from swarm.wire.credentials import Credentials

SPREAD = [("w0", 5, (0, 3)), ("w2", 1, (6, 7))]


@pytest.mark.parametrize(("dtype", "every"), [("int8", 4), ("int4", 1)], ids=["int8", "int4"])
async def test_no_answer_is_lost_in_few_bits(dtype: str, every: int) -> None:
    """Of all that is right in fp32; in int8, which keeps more of each weight, of every fourth."""
    plan = plan_of([4, 8], dtype=dtype, context=1280)
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        answers = await ask_all(client, asked := questions("eval")[::every], at_once=8)
    right = [json.loads(line)["right"] for line in (DATA / "eval.jsonl").read_text().splitlines()][::every]
    lost = [i for i, (got, q) in enumerate(zip(answers, asked, strict=True)) if right[i] and got != q.answer]
    assert sum(right) * every > 200
    assert not lost


@pytest.mark.parametrize("dtype", ["int8", "int4"])
async def test_placement_changes_no_token_of_a_quantized_model(dtype: str) -> None:
    plan = plan_of([8], dtype=dtype, context=1280)
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        alone = await ask_all(client, questions("stories")[:3], at_once=1)
    split = plan_of([3, 5, 8], SPREAD, dtype=dtype, context=1280)
    async with workers_here(split), open_client(InMemory(split), Credentials()) as client:
        assert await ask_all(client, questions("stories")[:3], at_once=1) == alone
