"""Loading what a Worker lacks for a Plan: part by part, out of the cache, or of the model's files wherever they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path

import torch

from swarm.config import Sizes
from swarm.model.dtypes import numbers_of
from swarm.model.kernels.choice import kernels_for
from swarm.plan import Plan
from swarm.weights.cache.tree import Weights
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.tally import Fetched
from swarm.wire.v1 import weights_pb2 as pb_weights
from swarm.worker.fetching import Fetching
from swarm.worker.holdings import Holdings, Part, part_bytes, parts_of
from swarm.worker.stock import Stock
from swarm.worker.supply import Supply
from swarm.worker.wanted import wanted_bytes


class Loading:
    """Adds to what the Worker holds.

    Args:
        cache: the folder of quantized weights; None: nothing is cached.
    """

    def __init__(self, name: str, device: torch.device, holdings: Holdings, stock: Stock, cache: Path | None) -> None:
        self.said: list[str] = []
        """How far it is, and what it fetches; empty while nothing is loaded."""
        self._name, self._device, self._holdings, self._stock, self._cache = name, device, holdings, stock, cache

    def lacking(self, plan: Plan, name: str) -> list[Part]:
        """The parts for which this Worker needs the model's files, if it becomes the one of that name in a Plan."""
        if name not in {w.name for w in plan.workers}:
            return []
        return Supply(plan.model, self._device, _no_files, "", self._cache).uncached(self._holdings.missing(parts_of(plan, name)))

    async def load(self, plan: Plan, folder: str, peers: Sequence[pb_weights.Peer]) -> AsyncIterator[tuple[int, int]]:
        """Load it; see `Worker.prepare`."""
        await asyncio.to_thread(kernels_for, self._device, numbers_of(plan.model.dtype))  # a card compiles and tries them once
        missing = self._holdings.missing(parts_of(plan, self._name))
        sizes = Sizes(plan.model.config, plan.model.dtype)
        total = sum(part_bytes(p, sizes) for p in missing)
        if not missing:
            return
        yield 0, total
        supply = Supply(
            plan.model, self._device, lambda: self._stock.open(plan.model, folder, peers).checkpoint, folder, self._cache
        )
        self._stock.said.clear()
        loaded = 0
        try:
            async for _ in self._fetch(plan, folder, peers, await asyncio.to_thread(supply.uncached, missing)):
                yield 0, total
            for part in missing:
                self._holdings.add(part, await _to_its_end(asyncio.to_thread(supply.part, part)))
                loaded += part_bytes(part, sizes)
                self.said[:] = [f"{plan.model.name}: {100 * loaded // total}%", *self._stock.said[-1:]]
                yield loaded, total
        finally:
            self.said.clear()
        self._holdings.loaded(missing[0].model, supply.tell(self._name), supply.in_use)

    async def _fetch(
        self, plan: Plan, folder: str, peers: Sequence[pb_weights.Peer], parts: Sequence[Part]
    ) -> AsyncIterator[Fetched]:
        """Bring what only the Hub has of these parts into the cache, several files at once."""
        if not parts:
            return
        found = await asyncio.to_thread(self._stock.open, plan.model, folder, peers)
        names = found.only_on_the_hub(wanted_bytes(found.checkpoint, found.files, parts))
        if names:
            async with Fetching(self._stock, plan.model, names, self.said) as fetching:
                async for now in fetching.progress():
                    yield now


def _no_files() -> Checkpoint:
    raise AssertionError("nothing is loaded here")


async def _to_its_end(reading: Coroutine[object, object, Weights]) -> Weights:
    """What a thread reads. One who cancels waits for it too: its memory must not be taken after the rest was given back."""
    task = asyncio.get_running_loop().create_task(reading)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
