"""Experts far away: asked before the near ones run, once a shard a Block whatever the rows, and the wait for them is told."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest
import torch
from plans import plan_of
from raw_client import raw, step
from swarm_processes import until, workers_here
from torch import Tensor

from swarm.errors import Lost
from swarm.model.experts import ExpertWeights, LocalExperts
from swarm.plan import Plan
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import shards
from swarm.worker.compute import Compute
from swarm.worker.epoch import Epoch
from swarm.worker.experts import RemoteExperts
from swarm.worker.link import Link
from swarm.worker.peers import Peers

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


class Deaf:
    """Peers and the stream to one: takes what is sent, and never answers."""

    def __init__(self) -> None:
        self.taken: list[pb.ExpertRequest] = []

    async def near(self, *stream: object) -> Deaf:
        return self

    def send(self, request: pb.ExpertRequest) -> None:
        self.taken.append(request)

    async def ended(self) -> str:
        return await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """The stream ends with its link."""


async def test_who_asks_in_the_moment_in_which_a_stream_is_renewed_hears_at_once_that_it_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaf, compute, near = Deaf(), Compute(1, "asks"), LocalExperts({})
    experts = RemoteExperts("w1", "worker w1", "here", cast(Peers, deaf), compute, asyncio.get_running_loop(), ("model", 1), near)
    waits: list[Callable[[], object]] = []
    really = Link.renew

    def ask() -> None:
        waits.append(experts.ask(0, torch.zeros(1, 4), {5: torch.tensor([0])}))

    def renew(link: Link[pb.ExpertRequest, pb.ExpertReply]) -> None:
        ask()  # as the compute thread does, which asks no loop
        really(link)

    ask()
    await until(lambda: len(deaf.taken) == 1, "nothing was asked")
    experts._arrived(pb.ExpertReply(id=0))  # nothing is awaited now
    monkeypatch.setattr(Link, "renew", renew)
    experts.renew()
    assert len(deaf.taken) == 2, "what was asked meanwhile left on the stream of before"
    with pytest.raises(Lost, match="renewed"):
        await asyncio.to_thread(waits[1])
    await experts.close()
    await asyncio.to_thread(compute.stop)
