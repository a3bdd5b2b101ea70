"""Experts far away: asked before the near ones run, once a shard a Block whatever the rows, and the wait for them is told."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from plans import plan_of
from raw_client import raw, step
from swarm_processes import workers_here
from torch import Tensor

from swarm.model.experts import ExpertWeights, LocalExperts
from swarm.plan import Plan
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import shards
from swarm.worker.epoch import Epoch

PATIENCE_S = 20.0
BLOCKS, NEAR = 8, (0, 1, 2, 3)
TEXT = [(37 * i) % 2900 + 20 for i in range(100)]


def half_far() -> Plan:
    """One Stage; a quarter of each Block's experts on one other Worker, a quarter on another."""
    return plan_of([8], [("w1", b, (4, 5)) for b in range(BLOCKS)] + [("w2", b, (6, 7)) for b in range(BLOCKS)])


async def test_the_request_is_there_before_near_experts_run_and_one_a_shard_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    came: dict[int, threading.Event] = {b: threading.Event() for b in range(BLOCKS)}
    asked: Counter[tuple[str, int]] = Counter()
    answer, forward = shards.answer, ExpertWeights.forward
    block_at_hand: list[int] = []

    def heard(request: pb.ExpertRequest, epoch: Epoch) -> pb.ExpertReply:
        asked[epoch.name, request.block] += 1
        came[request.block].set()
        return answer(request, epoch)

    def near(weights: ExpertWeights, x: Tensor) -> Tensor:
        if threading.current_thread().name == "compute w0":
            assert came[block_at_hand[-1]].wait(PATIENCE_S), "near experts run, and no far one was asked"
        return forward(weights, x)

    ask = LocalExperts.ask

    def asks(experts: LocalExperts, block: int, hidden: Tensor, rows: dict[int, Tensor]) -> object:
        if threading.current_thread().name == "compute w0":
            block_at_hand.append(block)
        return ask(experts, block, hidden, rows)

    monkeypatch.setattr(shards, "answer", heard)
    monkeypatch.setattr(ExpertWeights, "forward", near)
    monkeypatch.setattr(LocalExperts, "ask", asks)
    plan = half_far()
    async with workers_here(plan) as workers, raw(plan) as client:
        session = await client.open(128)
        await client.ask(step(session, TEXT, 0, 100, ask=pb.Ask(rows=1, k=1)))
        assert len(block_at_hand) == BLOCKS
        [epoch] = workers["w0"].epochs.all()
        assert epoch.shard_wait_s > 0
    assert asked == Counter({(worker, block): 1 for worker in ("w1", "w2") for block in range(BLOCKS)})
