"""What a Worker lacks of a model's files, and fetching them from the Hub while everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from swarm.errors import MissingWeights, ModelError
from swarm.plan import Model, Plan
from swarm.weights import hub
from swarm.weights.hub_id import HubId
from swarm.weights.tally import Fetched, Tally
from swarm.wire.v1 import weights_pb2 as pb
from swarm.worker.stock import Found, Stock
from swarm.worker.wanted import wanted_bytes

if TYPE_CHECKING:
    from swarm.worker.worker import Worker

REPORT_S = 0.5


async def survey(worker: Worker, plan: Plan, name: str, peers: Sequence[pb.Peer]) -> pb.SurveyReply:
    """What a Worker lacks for a Plan, and what its Rig has. Raises ModelError where it lacks something and finds no model."""
    lacking = await asyncio.to_thread(worker.lacking, plan, name)
    try:
        found = await asyncio.to_thread(worker.stock.open, plan.model, "", peers)
    except ModelError:
        if lacking:
            raise
        return pb.SurveyReply()
    return await asyncio.to_thread(_reply, found, wanted_bytes(found.checkpoint, found.files, lacking))


def _reply(found: Found, wanted: dict[str, int]) -> pb.SurveyReply:
    held = found.held
    reply = pb.SurveyReply(held=held, where=str(found.checkpoint.folder))
    absent = [name for name in wanted if name not in held]
    sizes = {name: file.size() for name, file in found.files.items() if name in absent}
    begun = dict.fromkeys(absent, 0)
    if found.hub is not None:
        folder = hub.cache_folder(None)
        reply.cache, reply.free_bytes = str(folder), hub.free_bytes(folder)
        try:
            begun = {blob.name: blob.here for blob in hub.blobs(found.hub, absent, None)}
        except MissingWeights as error:
            reply.hub_trouble = str(error)
    for name in absent:
        reply.absent.add(name=name, file_bytes=sizes[name], wanted_bytes=wanted[name], begun_bytes=begun[name])
    return reply


class Fetching:
    """Files of a model on their way from the Hub into this Rig's cache. An async context: leaving it early ends it.

    Args:
        loading: what the Worker says that it does; its last line is kept up to date.
    """

    def __init__(self, stock: Stock, model: Model, names: Sequence[str], loading: list[str]) -> None:
        self._stock, self._model, self._names, self._loading = stock, model, names, loading
        self._tally = Tally()

    async def __aenter__(self) -> Self:
        self._loading[:] = [f"{self._model.name}: looking at the Hub"]
        self._task = asyncio.create_task(asyncio.to_thread(self._fetch))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tally.stopped.set()
        self._loading.clear()
        await asyncio.wait({self._task})

    async def progress(self) -> AsyncIterator[Fetched]:
        """How far it is, twice a second, until all is there. Raises ModelError where it cannot be had."""
        while not (await asyncio.wait({self._task}, timeout=REPORT_S))[0]:
            now = self._tally.now
            if now.total:
                self._loading[:] = [f"{self._model.name}: {fetched(now)} from the Hub"]
                yield now
        self._task.result()
        yield self._tally.now

    def _fetch(self) -> None:
        of_hub = HubId.of(self._model.source)
        if of_hub is None:
            raise MissingWeights(f"{self._model.source} is not a model of the Hub: copy its files to a rig of the swarm")
        hub.fetch(of_hub, self._names, None, self._tally)


def fetched(now: Fetched) -> str:
    """For people: `fetching 1.2 of 8.0 GiB, 95.2 MB/s`."""
    return f"fetching {now.done / 2**30:.1f} of {now.total / 2**30:.1f} GiB, {now.rate / 1e6:.1f} MB/s"
