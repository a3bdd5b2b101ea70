"""Whole Workers that compute as on a card, with the twins of its kernels and of its recordings: what they answer and count."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from plans import Shards, odd_experts_on, plan_of
from pretend_card import Again
from questions import ask_all, questions
from swarm_processes import InMemory, workers_here

from swarm.client.client import open_client
from swarm.model.kernels.port import FEW_ROWS, Plain
from swarm.wire.credentials import Credentials

LAYOUTS: dict[str, tuple[Sequence[int], Shards]] = {
    "all of it recorded": ([3, 8], ()),
    "two Blocks with experts elsewhere": ([4, 8], odd_experts_on("w0", (5, 6))),
}


@pytest.fixture(autouse=True)
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("swarm.worker.assembly", "swarm.model.cache"):
        monkeypatch.setattr(f"{module}.kernels_for", lambda device, dtype: Plain())
    monkeypatch.setattr("swarm.worker.assembly.recorder_for", lambda device, dtype: Again())


@pytest.mark.parametrize("name", LAYOUTS)
async def test_greedy_answers_are_the_references_and_every_choice_is_counted(name: str) -> None:
    asked = questions("eval")[:12]
    plan = plan_of(*LAYOUTS[name], context=1280)
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        assert await ask_all(client, asked, at_once=4) == [q.answer for q in asked]
        counted = []
        for worker in workers.values():
            epoch = worker.epochs.current
            assert epoch is not None
            stage = epoch.stage
            stage.choices.fetch()
            far = any(plan.remote_experts(worker.name, block) for block in stage.blocks)
            assert (stage.decoding is None) == far, "what asks others is not recorded, all else is"
            assert far or (stage.decoding._recorded and all(size <= FEW_ROWS for size, _ in stage.decoding._recorded))
            counted += [sum(block.moe.counts) for block in stage.blocks.values()]
        assert len(set(counted)) == 1 and counted[0] > 2 * sum(len(q.prompt) for q in asked), "all Blocks saw all rows"
