"""Candidates are a row's own, however many rows are asked for; the question is checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from plans import plan_of
from raw_client import bits, raw, step
from swarm_processes import workers_here

from swarm.config import LOGIT_ROWS
from swarm.model.stage import Stage
from swarm.plan import Plan
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import asked as asked_file
from swarm.worker import candidates as candidates_file
from swarm.worker.candidates import Asked, candidates

TEXT = [(13 * i) % 2900 + 20 for i in range(200)]
ROWS = 200


def everything(rows: int) -> pb.Ask:
    return pb.Ask(rows=rows, k=8, temperature=0.7, named=[i for at in range(rows) for i in (at, 2 * at)], named_per_row=2)


async def answered(plan: Plan) -> Sequence[bytes]:
    async with workers_here(plan), raw(plan) as client:
        session = await client.open(256)
        return bits(*await client.ask(step(session, TEXT, 0, ROWS, ask=everything(ROWS))))[0]


async def test_the_last_stage_makes_no_more_logits_at_once_than_planned_and_answers_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    really = Stage.logits

    def counted(stage: Stage, h: torch.Tensor) -> torch.Tensor:
        asked.append(h.shape[0])
        return really(stage, h)

    monkeypatch.setattr(Stage, "logits", counted)
    plan = plan_of([8])
    in_slices = await answered(plan)
    assert sum(asked) == len(in_slices) == ROWS
    assert max(asked) <= LOGIT_ROWS
    monkeypatch.setattr(asked_file, "LOGIT_ROWS", 512)
    assert await answered(plan) == in_slices
    assert max(asked) == ROWS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_steps_that_ask_differently_are_answered_together_as_torch_answers_each(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randperm(6 * 97, generator=torch.Generator().manual_seed(0)).view(6, 97).sub(300).div(50).to(dtype)
    asked = [
        Asked(pb.Ask(rows=1, k=5, temperature=0.5), 0, 1),
        Asked(pb.Ask(rows=4, named=range(8), named_per_row=2), 1, 3),
        Asked(pb.Ask(rows=1, k=97, whole_row=True), 0, 1),
        Asked(pb.Ask(rows=1, k=1, temperature=1.0), 0, 1),
    ]
    together = candidates(logits, asked)
    assert [len(some) for some in together] == [1, 3, 1, 1]
    assert [list(answer.named) for answer in together[1]] == [logits[1 + i, 2 + 2 * i : 4 + 2 * i].tolist() for i in range(3)]
    assert together[2][0].row == logits[4].float().numpy().tobytes() and sorted(together[2][0].ids) == list(range(97))
    monkeypatch.setattr(candidates_file, "ranked", lambda: None)
    for mine, theirs in zip(together, candidates(logits, asked), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert list(one.logits) == list(other.logits)
            assert one.logsumexp == pytest.approx(other.logsumexp) and one.logsumexp_t == pytest.approx(other.logsumexp_t)
