"""Every Stage works: a prompt's chunks overlap, running answers go on beside it, and the next micro-batch lies ready.

The model is real; what each compute thread does, and when it may go on, is said by the tests. Nothing is timed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch
from plans import plan_of
from raw_client import RawClient, bits, raw, step
from swarm_processes import InMemory, until, workers_here

from swarm.client.client import open_client
from swarm.client.session import Session
from swarm.model.cache import PagedCache
from swarm.model.rows import Rows
from swarm.model.stage import Stage
from swarm.plan import PIECE_ROWS, Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.around import Around
from swarm.worker.batching import BesideRows
from swarm.worker.entry import RECENT_S
from swarm.worker.worker import Worker

PATIENCE_S = 20.0
TEXT = [(37 * i) % 2900 + 20 for i in range(512)]
LONG = 12 * PIECE_ROWS


@dataclass
class Seen:
    """What the Stages computed, in order: first Block and rows of each Session; and what they wait for."""

    workers: dict[str, Worker] = field(default_factory=dict)
    began: list[tuple[int, dict[bytes, int]]] = field(default_factory=list)
    gates: dict[int, threading.Semaphore] = field(default_factory=dict)
    """First Block → how many micro-batches its Stage may still begin."""
    last_block: threading.Semaphore | None = None
    """How often a first Stage may still go through its last Block."""
    computing: set[int] = field(default_factory=set)

    def rows_at(self, first: int) -> list[dict[bytes, int]]:
        """Of each micro-batch of one Stage, in order: Session → rows."""
        return [rows for stage, rows in self.began if stage == first]

    def release(self) -> None:
        for gate in (*self.gates.values(), *([self.last_block] if self.last_block else [])):
            gate.release(1000)


@asynccontextmanager
async def seen(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> AsyncIterator[tuple[Seen, RawClient]]:
    """Workers of a Plan, watched."""
    watch, really = Seen(), Stage.forward

    def forward(stage: Stage, h: torch.Tensor, rows: Rows, cache: PagedCache, between: Callable[[], None]) -> torch.Tensor:
        first, left = min(stage.blocks), len(stage.blocks)
        watch.began.append((first, {s.session: s.end - s.start for s in rows.segments}))
        watch.computing.add(first)
        if first in watch.gates:
            assert watch.gates[first].acquire(timeout=PATIENCE_S)

        def stop() -> None:
            nonlocal left
            left -= 1
            between()
            if left == 0 and first == 0 and watch.last_block is not None:
                assert watch.last_block.acquire(timeout=PATIENCE_S)

        out = really(stage, h, rows, cache, stop)
        watch.computing.remove(first)
        return out

    monkeypatch.setattr(Stage, "forward", forward)
    async with workers_here(plan) as watch.workers, raw(plan) as client:
        try:
            yield watch, client
        finally:
            watch.release()


def pieces(session: bytes, rows: int) -> list[pb.StepHeader]:
    """A prompt as clients send it."""
    cuts = range(0, rows, PIECE_ROWS)
    return [step(session, TEXT, at, at + PIECE_ROWS, ask=pb.Ask(rows=int(at == cuts[-1]), k=1)) for at in cuts]


async def test_a_prompts_next_chunk_is_computed_while_the_stage_behind_has_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async with seen(monkeypatch, replace(plan_of([4, 8]), start_rows=48)) as (watch, client):
        watch.gates[4] = threading.Semaphore(0)  # the second Stage holds the first chunk
        prompt = pieces(await client.open(512), LONG)
        await client.send(*prompt)
        await until(lambda: len(watch.rows_at(0)) > 1 and watch.computing >= {4}, "the first Stage waits for the second")
        watch.release()
        assert isinstance(await client.next(prompt[-1]), pb.StepAnswer)
        chunks = [rows for each in watch.rows_at(0) for rows in each.values()]
        assert sum(chunks) == LONG
        assert max(chunks) <= LONG // 2, "chunks are too large for both Stages to work"


async def test_one_stage_has_a_prompt_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    async with seen(monkeypatch, plan_of([8])) as (watch, client):
        prompt = pieces(await client.open(512), 256)
        await client.send(*prompt)
        assert isinstance(await client.next(prompt[-1]), pb.StepAnswer)
        assert [list(each.values()) for each in watch.rows_at(0)] == [[256]]


async def test_pieces_that_come_again_in_other_company_are_answered_again_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async with seen(monkeypatch, plan_of([4, 8])) as (watch, client):
        prompt = pieces(await client.open(512), 4 * PIECE_ROWS)
        await client.send(*prompt)
        first = await client.next(prompt[-1])
        assert isinstance(first, pb.StepAnswer)
        computed = len(watch.began)
        for start in (3, 2, 0):
            seen_before = len(client.came)
            await client.send(*prompt[start:])
            again = await client.next(prompt[-1], seen_before)
            assert isinstance(again, pb.StepAnswer), f"refused: {again}"
            assert bits(again) == bits(first)
        assert len(watch.began) == computed, "it was computed again"


@pytest.mark.parametrize("ends", [[8], [4, 8]])
async def test_answers_beside_a_long_prompt_wait_for_one_chunk_a_token(monkeypatch: pytest.MonkeyPatch, ends: list[int]) -> None:
    plan = plan_of(ends, sessions=4)
    monkeypatch.setattr(BesideRows, "rows", lambda *_: PIECE_ROWS)  # else as many as are quick here
    monkeypatch.setattr(Around, "outside", 1)  # however slow this machine is
    monkeypatch.setattr("swarm.worker.entry.RECENT_S", PATIENCE_S)
    async with seen(monkeypatch, plan) as (watch, client):
        answering, prompt = [await client.open(512) for _ in range(3)], pieces(await client.open(512), LONG)
        for at, session in enumerate(answering):
            await client.ask(step(session, TEXT, 0, 4 + at))
        over = asyncio.Event()

        async def answer(session: bytes, start: int) -> None:
            for at in range(start, len(TEXT)):
                if over.is_set():
                    return
                await client.ask(step(session, TEXT, at, at + 1))

        running = [asyncio.create_task(answer(session, 4 + at)) for at, session in enumerate(answering)]
        await until(lambda: len(watch.began) > 20, "no answer runs")
        before = len(watch.rows_at(0))
        await client.send(*prompt)
        assert isinstance(await client.next(prompt[-1]), pb.StepAnswer)
        over.set()
        await asyncio.gather(*running)
        batches = watch.rows_at(0)[before:]
        long = prompt[0].session
        assert sum(each.get(long, 0) for each in batches) == LONG
        for session in answering:
            tokens = [at for at, each in enumerate(batches) if session in each]
            between = [sum(long in each for each in batches[a + 1 : b + 1]) for a, b in pairwise(tokens)]
            assert sum(between) > LONG // PIECE_ROWS // 2, "the prompt went while no answer ran"
            assert max(between) <= 2, "it waits for many chunks for one token"
            assert sum(between) <= 1.25 * sum(n > 0 for n in between) + 1, "it waits for several chunks a token"


async def test_a_chunk_goes_with_the_answers_that_are_about_to_come_where_one_micro_batch_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BesideRows, "rows", lambda *_: PIECE_ROWS)
    monkeypatch.setattr(Around, "outside_s", PATIENCE_S)  # however slow this machine is
    monkeypatch.setattr("swarm.worker.entry.RECENT_S", PATIENCE_S)
    async with seen(monkeypatch, replace(plan_of([8], sessions=2), in_flight=1)) as (watch, client):
        monkeypatch.setattr(watch.workers["w0"].entry._beside, "plain_s", 2 * PATIENCE_S)
        session, prompt = await client.open(512), pieces(await client.open(512), LONG)
        await client.ask(step(session, TEXT, 0, 4))
        await client.ask(step(session, TEXT, 4, 5))
        before = len(watch.began)
        await client.send(*prompt)
        for at in range(5, 8):
            await until(lambda: watch.workers["w0"].entry._queue.prompt_rows() > 0, "the prompt does not come")
            await client.ask(step(session, TEXT, at, at + 1))
        assert watch.began[before:] == [(0, {session: 1, prompt[0].session: PIECE_ROWS})] * 3
        await client.release(session)
        assert isinstance(await client.next(prompt[-1]), pb.StepAnswer)


async def test_answers_whose_micro_batches_take_long_run_beside_a_prompt_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BesideRows, "rows", lambda *_: PIECE_ROWS)
    async with seen(monkeypatch, replace(plan_of([8], sessions=2), in_flight=1)) as (watch, client):
        session, prompt = await client.open(512), pieces(await client.open(512), LONG)
        await client.ask(step(session, TEXT, 0, 4))
        watch.gates[0] = threading.Semaphore(0)
        token = step(session, TEXT, 4, 5)
        await client.send(token)
        await until(lambda: len(watch.began) == 2, "the answer's Step does not begin")
        watch.workers["w0"].entry.sweep(time.monotonic() + 10 * RECENT_S)  # so long has its token been computed
        await client.send(*prompt)
        await until(lambda: watch.workers["w0"].entry._queue.prompt_rows() == LONG, "the prompt does not come")
        watch.gates[0].release()
        await until(lambda: len(watch.began) == 3, "nothing follows the token")
        assert watch.began[-1][1] == {prompt[0].session: PIECE_ROWS}, "the prompt goes as if no answer ran"
        watch.release()
        assert isinstance(await client.next(prompt[-1]), pb.StepAnswer)


async def test_an_answer_that_waited_behind_a_long_chunk_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BesideRows, "rows", lambda *_: PIECE_ROWS)
    monkeypatch.setattr("swarm.worker.entry.RECENT_S", PATIENCE_S)  # however slow this machine is
    async with seen(monkeypatch, replace(plan_of([8], sessions=2), in_flight=1)) as (watch, client):
        session, prompt = await client.open(512), pieces(await client.open(512), LONG)
        await client.ask(step(session, TEXT, 0, 4))
        await client.ask(step(session, TEXT, 4, 5))
        watch.gates[0] = threading.Semaphore(0)
        await client.send(*prompt)
        await until(lambda: len(watch.began) == 3, "the prompt does not begin")
        await client.send(step(session, TEXT, 5, 6))
        entry = watch.workers["w0"].entry
        await until(lambda: entry._queue.answering() == {session}, "the answer's Step does not come")
        entry.sweep(time.monotonic() + 2 * PATIENCE_S)  # so long does the chunk take
        for count in (4, 5):
            watch.gates[0].release()
            await until(lambda count=count: len(watch.began) == count, "nothing follows")
        assert watch.began[-1][1] == {prompt[0].session: PIECE_ROWS}, "the prompt goes as if no answer ran"
        watch.release()
        assert isinstance(await client.next(prompt[-1]), pb.StepAnswer)


async def test_the_next_micro_batch_is_formed_before_the_one_at_hand_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async with seen(monkeypatch, replace(plan_of([4, 8]), start_rows=48)) as (watch, client):
        watch.last_block = threading.Semaphore(0)  # the first Stage stops before its last Block
        prompt = pieces(await client.open(512), LONG)
        await client.send(*prompt)
        await until(lambda: watch.workers["w0"].flow.started == 2, "the next one is not formed")
        assert len(watch.began) == 1
        watch.release()
        assert isinstance(await client.next(prompt[-1]), pb.StepAnswer)


async def test_a_client_sends_a_prompt_in_pieces_and_what_it_asks_for_in_one() -> None:
    plan = plan_of([4, 8])
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials()) as client:
        session = Session(client)
        session.replace(TEXT[:300])
        await session.reserve(301)
        [answer] = await session.traverse(299, lambda _, end: pb.Ask(rows=1, k=1) if end == 300 else pb.Ask())
        assert session.serial == answer.serial == 10
        assert workers["w1"].status().tokens == 300
        assert workers["w1"].status().micro_batches < 10
        await session.close()


@pytest.mark.parametrize(("why", "most"), [("a Stage forgot it", 2600), ("somebody stopped it", 2250)])
async def test_a_prompt_that_is_sent_again_while_it_waits_is_computed_once_beyond_what_was_under_way(
    monkeypatch: pytest.MonkeyPatch, why: str, most: int
) -> None:
    text, asked = [(37 * i) % 2900 + 20 for i in range(1500)], pb.Ask(rows=1, k=1)
    plan = plan_of([4, 8], context=1600)
    async with seen(monkeypatch, plan) as (watch, _), open_client(InMemory(plan), Credentials()) as client:
        watch.gates[0] = threading.Semaphore(0)
        session = Session(client)
        session.replace(text)
        await session.reserve(1600)

        async def traverse() -> list[pb.StepAnswer]:
            return await session.traverse(len(session.tokens) - 1, lambda _, end: asked if end == len(session.tokens) else pb.Ask())

        traversal = asyncio.create_task(traverse())
        entry = watch.workers["w0"].entry
        await until(lambda: len(entry._queue) > 20, "the prompt does not wait")
        if why == "a Stage forgot it":
            [pool] = watch.workers["w1"].epochs.pools()
            pool.close_session(session.id)
            watch.gates[0].release()
        else:
            traversal.cancel()
            await asyncio.gather(traversal, return_exceptions=True)
            session.replace(text[500:1400])
            traversal = asyncio.create_task(traverse())
        serial = session.serial
        await until(lambda: session.serial > serial, "it is not sent again")
        watch.release()
        async with asyncio.timeout(60):
            assert len(await traversal) == 1
        rows = sum(n for each in watch.rows_at(0) for n in each.values())
        assert rows <= most, "what was overtaken was computed"
        await session.close()
