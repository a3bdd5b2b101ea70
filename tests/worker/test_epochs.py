"""Changing the Plan while a chat streams: no token changes, what stays is not loaded twice, what goes is given back."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from plans import each_others_experts, free_addresses, nano, odd_experts_on, plan_of, weights_of
from questions import GREEDY, questions
from raw_client import raw, step
from swarm_processes import InMemory, prepare, until, workers_here

from swarm.client.client import Client, open_client
from swarm.client.conversation import Conversation
from swarm.errors import DeviceError, DoesNotFit, ModelError, Refused
from swarm.model.cache import PagedCache
from swarm.model.experts import ExpertWeights
from swarm.model.rows import Rows
from swarm.model.stage import Stage
from swarm.plan import Plan
from swarm.weights.load import Loader
from swarm.weights.source import resolve
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import holdings
from swarm.worker import worker as worker_module
from swarm.worker.worker import Worker

STORY = questions("stories")[0]
NAMES = ["w0", "w1", "w2"]


@dataclass
class Chat:
    """A story half told, and the Workers that tell it."""

    workers: Mapping[str, Worker]
    source: InMemory
    client: Client
    talk: Conversation
    addresses: dict[str, str]

    def plan(self, epoch: int, ends: list[int], names: list[str], **more: object) -> Plan:
        return plan_of(ends, names=names, addresses=self.addresses, epoch=epoch, **more)  # type: ignore[arg-type]

    async def tell(self, tokens: int) -> None:
        """Go on until the story has that many tokens."""
        async for _ in self.pieces:
            if len(self.talk.answer.tokens) >= tokens:
                break
        assert self.talk.answer.tokens == STORY.answer[: len(self.talk.answer.tokens)]

    def begin(self) -> None:
        self.pieces = self.talk.generate(STORY.prompt, GREEDY, len(STORY.answer))

    async def change_to(self, plan: Plan) -> None:
        """Prepare, Commit, tell the client, drain the one before."""
        before = self.source.current
        involved = {w.name: self.workers[w.name] for w in plan.workers}
        await prepare(involved, plan)
        for worker in involved.values():
            worker.commit(plan.epoch)
        await self.source.switch(plan)
        await asyncio.gather(*(worker.drain(before.epoch, 5.0) for worker in self.workers.values()))

    def holds_what_is_planned(self) -> bool:
        plan = self.source.current
        planned = {w.name: weights_of(plan, w.name) for w in plan.workers}
        return all(worker.status().weights_bytes == planned.get(name, 0) for name, worker in self.workers.items())


@asynccontextmanager
async def chat(ends: list[int], names: list[str]) -> AsyncIterator[Chat]:
    addresses = free_addresses(NAMES)
    everyone = plan_of([2, 4, 8], names=NAMES, addresses=addresses)
    first = plan_of(ends, names=names, addresses=addresses)
    async with workers_here(everyone, commit=False) as workers:
        involved = {name: workers[name] for name in names}
        await prepare(involved, first)
        for worker in involved.values():
            worker.commit(1)
        source = InMemory(first)
        async with open_client(source, Credentials()) as client:
            made = Chat(workers, source, client, client.conversation(), addresses)
            made.begin()
            yield made


async def test_a_worker_that_joins_while_a_chat_streams_changes_no_token_and_takes_its_share() -> None:
    async with chat([3, 8], ["w0", "w1"]) as telling:
        await telling.tell(15)
        changing = asyncio.create_task(telling.change_to(telling.plan(2, [2, 5, 8], NAMES)))
        await telling.tell(60)
        await changing
        await telling.tell(len(STORY.answer))
        assert telling.talk.answer.tokens == STORY.answer
        assert telling.holds_what_is_planned()
        assert telling.workers["w2"].status().tokens > 0
        assert [w.status().epochs for w in telling.workers.values()] == [[2]] * 3


async def test_a_worker_that_left_the_plan_is_talked_to_no_more() -> None:
    async with chat([2, 5, 8], NAMES) as telling:
        await telling.tell(10)
        assert telling.addresses["w1"] in telling.workers["w0"].flow.hops._links
        await telling.change_to(telling.plan(2, [3, 8], ["w0", "w2"]))
        await telling.tell(20)
        for name in ("w0", "w2"):
            worker = telling.workers[name]
            assert telling.addresses["w1"] not in {*worker.flow.hops._links, *worker.peers._channels}
        assert not telling.workers["w1"].flow.hops._links


async def test_a_step_computed_beyond_the_drains_deadline_is_told_that_the_plan_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of([4, 8])
    computing, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(Stage, "forward", held_up(computing, go_on))
    async with workers_here(plan) as workers, raw(plan) as client:
        late = step(await client.open(64), STORY.prompt, 0, 10)
        await client.send(late)
        await until(computing.is_set, "nothing is computed")
        await workers["w0"].drain(1, 0.05)
        go_on.set()
        status = await client.next(late)
        assert isinstance(status, pb.StepStatus)
        assert (status.code, status.worker) == (pb.MOVED, "w0")
        assert not workers["w0"].flow.hops._links


async def test_blocks_that_go_and_come_back_hold_nothing_old() -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(10)
        for epoch, ends in enumerate([[6, 8], [4, 8], [2, 8], [4, 8]], 2):
            await telling.change_to(telling.plan(epoch, ends, ["w0", "w1"]))
            await telling.tell(10 * epoch)
            assert telling.holds_what_is_planned()
        await telling.tell(len(STORY.answer))
        assert telling.talk.answer.tokens == STORY.answer


async def test_blocks_that_went_and_came_back_while_a_chat_was_silent_hold_nothing_old() -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(30)
        await telling.change_to(telling.plan(2, [2, 8], ["w0", "w1"]))
        await telling.change_to(telling.plan(3, [4, 8], ["w0", "w1"]))
        await telling.tell(len(STORY.answer))
        assert telling.talk.answer.tokens == STORY.answer


async def test_kv_of_kept_blocks_is_not_computed_again() -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(30)
        before = telling.workers["w0"].status().tokens
        await telling.change_to(telling.plan(2, [4, 8], ["w0", "w1"], shards=each_others_experts("w0", "w1", 4)))
        await telling.tell(40)
        assert telling.workers["w0"].status().tokens - before <= 12
        assert telling.holds_what_is_planned()


async def test_an_epoch_drained_before_the_client_hears_of_the_next_costs_a_pause_only() -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(10)
        plan = telling.plan(2, [8], ["w2"])
        await prepare({"w2": telling.workers["w2"]}, plan)
        telling.workers["w2"].commit(2)
        for name in ("w0", "w1"):
            await telling.workers[name].drain(1, 5.0)
        following = asyncio.create_task(telling.tell(20))
        done, _ = await asyncio.wait({following}, timeout=0.3)
        assert not done
        await telling.source.switch(plan)
        async with asyncio.timeout(60):
            await following
        assert telling.holds_what_is_planned()


async def test_a_plan_heard_of_before_every_worker_committed_it_is_tried_again_soon() -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(10)
        plan = telling.plan(2, [5, 8], ["w0", "w1"])
        await prepare({name: telling.workers[name] for name in ("w0", "w1")}, plan)
        await telling.workers["w0"].drain(1, 5.0)
        telling.workers["w0"].commit(2)
        await telling.source.switch(plan)
        following = asyncio.create_task(telling.tell(20))
        done, _ = await asyncio.wait({following}, timeout=0.3)
        assert not done
        telling.workers["w1"].commit(2)
        async with asyncio.timeout(60):
            await following


async def test_loading_that_fails_midway_leaves_the_old_epoch_serving_and_the_memory_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "nano"
    shutil.copytree(resolve("nano"), folder)
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(10)
        worker = telling.workers["w0"]
        before = worker.status()
        plan = telling.plan(2, [8], ["w0"], model=nano(source=str(folder)))
        with pytest.raises(ModelError, match="safetensors"):
            async for loaded, _ in worker.prepare(plan, "w0"):
                if loaded:
                    (folder / "model.safetensors").unlink(missing_ok=True)
        after = worker.status()
        assert (after.weights_bytes, after.kv_bytes, list(after.epochs)) == (before.weights_bytes, before.kv_bytes, [1])
        assert not after.loading
        with pytest.raises(Refused):
            worker.commit(2)
        await telling.tell(len(STORY.answer))
        assert telling.talk.answer.tokens == STORY.answer


async def test_loading_that_nobody_waits_for_any_more_gives_back_what_it_loaded() -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        worker = telling.workers["w0"]
        before = worker.status().weights_bytes
        loading = worker.prepare(telling.plan(2, [8], ["w0"]), "w0")
        await anext(loading)
        await anext(loading)
        assert worker.status().weights_bytes > before
        await loading.aclose()
        assert worker.status().weights_bytes == before


async def test_loading_that_is_cancelled_inside_a_tensor_gives_that_one_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()
    really = Loader.expert

    def slowly(loader: Loader, block: int, index: int) -> ExpertWeights:
        reading.set()
        assert go_on.wait(60)
        return really(loader, block, index)

    async with chat([4, 8], ["w0", "w1"]) as telling:
        monkeypatch.setattr(Loader, "expert", slowly)
        worker = telling.workers["w0"]
        before = worker.status().weights_bytes
        loading = asyncio.create_task(prepare({"w0": worker}, telling.plan(2, [8], ["w0"])))
        await until(reading.is_set, "nothing is read")
        loading.cancel()
        done, _ = await asyncio.wait({loading}, timeout=0.2)
        assert not done, "it did not wait for the tensor that is being read"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await loading
        await until(lambda: worker.status().weights_bytes == before, "what was loaded stays")
        monkeypatch.undo()
        await prepare({"w0": worker}, telling.plan(2, [8], ["w0"]))
        assert worker.status().weights_bytes == weights_of(telling.plan(2, [8], ["w0"]), "w0")


async def test_what_a_worker_holds_is_added_where_its_status_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    adders: set[int] = set()
    really = holdings.Holdings.__init__

    class Parts(dict[holdings.Part, holdings.Weights]):
        def __setitem__(self, part: holdings.Part, weights: holdings.Weights) -> None:
            adders.add(threading.get_ident())
            super().__setitem__(part, weights)

    def watched(made: holdings.Holdings) -> None:
        really(made)
        made._parts = Parts()

    monkeypatch.setattr(holdings.Holdings, "__init__", watched)
    async with workers_here(plan_of([8])):
        assert adders == {threading.get_ident()}


async def test_a_plan_beyond_the_workers_memory_is_refused_with_the_sum() -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        telling.workers["w0"].memory_bytes = 1000
        with pytest.raises(DoesNotFit, match="MiB"):
            await prepare({"w0": telling.workers["w0"]}, telling.plan(2, [8], ["w0"]))
        await telling.tell(10)


OUT_OF_MEMORY = {
    "a card's": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "the host's": RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    "Python's": MemoryError(),
}


@pytest.mark.parametrize("where", ["weights", "kv"])
@pytest.mark.parametrize("error", OUT_OF_MEMORY)
async def test_memory_that_runs_out_while_loading_is_told_and_leaves_all_as_it_was(
    error: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OUT_OF_MEMORY[error]

    really, made = PagedCache.add_block, 0

    def fails_later(cache: PagedCache, block: int) -> None:
        nonlocal made
        made += 1
        if made > 6:
            raise OUT_OF_MEMORY[error]
        really(cache, block)

    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(10)
        worker = telling.workers["w0"]
        before = worker.status()
        with monkeypatch.context() as patched:
            patched.setattr(Loader, "expert", fails) if where == "weights" else patched.setattr(
                PagedCache, "add_block", fails_later
            )
            with pytest.raises(DeviceError, match=r"cpu ran out of memory .* free now: .* --device cpu=SIZE"):
                await prepare({"w0": worker}, telling.plan(2, [8], ["w0"]))
        after = worker.status()
        assert (after.weights_bytes, after.kv_bytes, list(after.epochs)) == (before.weights_bytes, before.kv_bytes, [1])
        await telling.tell(len(STORY.answer))


async def test_a_worker_left_without_a_stage_keeps_no_reservation() -> None:
    addresses = free_addresses(["w0", "w1"])
    plan = plan_of([4, 8], addresses=addresses, sessions=1, context=64)
    shards_only = plan_of([8], odd_experts_on("w1"), addresses=addresses, epoch=2, sessions=1, context=64)
    again = plan_of([4, 8], addresses=addresses, epoch=3, sessions=1, context=64)
    async with workers_here(plan) as workers:
        async with raw(plan) as client:
            gone = await client.open(64)
        for before, after in ((plan, shards_only), (shards_only, again)):
            await prepare(workers, after)
            for worker in workers.values():
                worker.commit(after.epoch)
            await asyncio.gather(*(worker.drain(before.epoch, 5.0) for worker in workers.values()))
            assert workers["w1"].status().sessions == 0
        async with raw(again) as client, asyncio.timeout(60):
            await client.release(gone)  # the first Worker, which always had a Stage, waits for this or the lease
            assert await client.open(64)


async def test_giving_up_the_old_epoch_first_frees_its_memory_before_the_new_one_is_loaded() -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(10)
        worker, plan = telling.workers["w1"], telling.plan(2, [8], ["w1"], dtype="bf16")
        most = 0
        async for _ in worker.prepare(plan, "w1", release_first=True):
            most = max(most, worker.status().weights_bytes)
        assert most <= weights_of(plan, "w1")
        assert worker.status().kv_bytes <= telling.workers["w0"].status().kv_bytes


async def test_who_gives_up_the_old_epoch_first_waits_for_nobody_who_serves_it_on_with_experts_from_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "RELEASE_S", 3600.0)
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.change_to(telling.plan(2, [8], ["w0"], shards=odd_experts_on("w1")))
        await telling.tell(10)
        plan = telling.plan(3, [8], ["w0"], shards=odd_experts_on("w1"))
        async with asyncio.timeout(60):
            async for _ in telling.workers["w1"].prepare(plan, "w1", release_first=True):
                pass
        await prepare({"w0": telling.workers["w0"]}, plan)
        for name in ("w0", "w1"):
            telling.workers[name].commit(3)
        await telling.source.switch(plan)
        await telling.tell(len(STORY.answer))
        assert telling.talk.answer.tokens == STORY.answer


@dataclass
class Watched:
    """The expert weights that a Worker holds now, and how many of them lived whenever memory was handed back."""

    refs: list[weakref.ref[ExpertWeights]]
    handed_back: list[int]

    def alive(self) -> int:
        return sum(ref() is not None for ref in self.refs)


def watch(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Watched:
    current = worker.epochs.current
    assert current is not None
    watched = Watched([weakref.ref(weights) for weights in current.experts.weights.values()], [])

    def release() -> None:
        gc.collect()
        watched.handed_back.append(watched.alive())

    monkeypatch.setattr(holdings, "release_memory", release)
    monkeypatch.setattr(worker_module, "release_memory", release)
    return watched


def held_up(computing: threading.Event, go_on: threading.Event) -> Callable[..., torch.Tensor]:
    """`Stage.forward` that says when it begins, and goes on when told."""
    really = Stage.forward

    def forward(stage: Stage, h: torch.Tensor, rows: Rows, *rest: Any) -> torch.Tensor:
        computing.set()
        assert go_on.wait(60)
        return really(stage, h, rows, *rest)

    return forward


async def test_the_old_weights_are_gone_before_the_first_of_the_new_ones_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat([4, 8], ["w0", "w1"]) as telling:
        await telling.tell(10)
        worker = telling.workers["w1"]
        watched = watch(worker, monkeypatch)
        async for loaded, _ in worker.prepare(telling.plan(2, [8], ["w1"], dtype="bf16"), "w1", release_first=True):
            assert loaded or watched.alive() == 0


async def test_a_retired_models_memory_is_handed_back_when_nothing_holds_it_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of([8])
    async with workers_here(plan) as workers, raw(plan) as client:
        await client.ask(step(await client.open(64), STORY.prompt, 0, 10))
        watched = watch(workers["w0"], monkeypatch)
        await workers["w0"].drain(1, 5.0)
        assert watched.handed_back == [0]


async def test_a_micro_batch_that_outlives_its_epoch_hands_its_memory_back_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of([8])
    computing, go_on = threading.Event(), threading.Event()

    async with workers_here(plan) as workers, raw(plan) as client:
        session = await client.open(64)
        watched = watch(workers["w0"], monkeypatch)
        monkeypatch.setattr(Stage, "forward", held_up(computing, go_on))
        await client.send(step(session, STORY.prompt, 0, 10))
        await until(computing.is_set, "nothing is computed")
        await workers["w0"].drain(1, 0.05)
        assert watched.handed_back == [len(watched.refs)]
        go_on.set()
        await until(lambda: len(watched.handed_back) == 2, "memory was not handed back")
        assert watched.handed_back[1] == 0
