"""First Steps before an epoch serves: they leave nothing behind, and say what a Device cannot compute."""

from __future__ import annotations

import asyncio

import pytest
import torch
from plans import Shards, odd_experts_on, plan_of
from raw_client import bits, raw, step
from swarm_processes import workers_here

from swarm.errors import DeviceError
from swarm.model.experts import ExpertWeights
from swarm.model.stage import Stage
from swarm.worker.compute import Compute
from swarm.worker.warming import ROWS, warm_up

TEXT = list(range(200, 230))


@pytest.mark.parametrize("shards", [(), odd_experts_on("w2")], ids=["whole Stages", "experts elsewhere"])
async def test_first_steps_compute_what_is_here_and_change_nothing(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, forward, seen = plan_of([4, 8], shards), ExpertWeights.forward, set[int]()
    async with workers_here(plan) as workers, raw(plan) as client:
        session = await client.open(64)
        before = bits(*await client.ask(step(session, TEXT, 0, 10)))

        def computes(weights: ExpertWeights, x: torch.Tensor) -> torch.Tensor:
            seen.add(x.shape[0])
            return forward(weights, x)

        monkeypatch.setattr(ExpertWeights, "forward", computes)
        for worker in workers.values():
            [epoch] = worker.epochs.all()
            free = epoch.cache.free_pages
            with torch.inference_mode():
                await warm_up(epoch, worker.compute)
            assert epoch.cache.free_pages == free
        assert max(seen) == max(ROWS) if shards else seen
        fresh = await client.open(64)
        assert bits(*await client.ask(step(fresh, TEXT, 0, 10))) == before


async def test_what_a_device_cannot_compute_is_a_sentence_and_lack_of_memory_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of([8])
    async with workers_here(plan) as workers:
        [epoch] = workers["w0"].epochs.all()
        free = epoch.cache.free_pages
        said: list[Exception] = [KeyError("out of resource: shared memory"), torch.OutOfMemoryError("CUDA out of memory")]

        def fails(*_: object) -> None:
            raise said[0]

        monkeypatch.setattr(Stage, "forward", fails)
        with pytest.raises(DeviceError, match=r"cannot compute nano in fp32 .*shared memory.*--dtype"):
            await warm_up(epoch, workers["w0"].compute)
        said.pop(0)
        with pytest.raises(torch.OutOfMemoryError):
            await warm_up(epoch, workers["w0"].compute)
        assert epoch.cache.free_pages == free


async def test_an_epoch_of_a_card_is_warm_before_it_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    from swarm.worker import worker as module

    warmed: list[int] = []

    async def warm(epoch: object, compute: Compute) -> None:
        await asyncio.sleep(0)
        warmed.append(1)
        raise DeviceError("cuda:0 cannot compute it")

    plan = plan_of([8])
    async with workers_here(plan) as workers:
        worker = workers["w0"]
        monkeypatch.setattr(module, "warm_up", warm)
        held, [epoch] = worker.status().weights_bytes, worker.epochs.all()
        blocks = epoch.cache.blocks
        worker.device = torch.device("cuda:0")
        monkeypatch.setattr(module, "Assembly", lambda *args: _Made(epoch))
        with pytest.raises(DeviceError, match="cannot compute it"):
            async for _ in worker.prepare(plan_of([8], epoch=2), "w0"):
                pass
        worker.device = torch.device("cpu")
        assert warmed and [e.number for e in worker.epochs.all()] == [1]
        assert worker.status().weights_bytes == held and epoch.cache.blocks == blocks


class _Made:
    def __init__(self, epoch: object) -> None:
        self._epoch = epoch

    def epoch(self) -> object:
        return self._epoch
