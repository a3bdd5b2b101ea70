"""A Session whose prompt begins like another's skips that on every Stage, and answers what it would have answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from plans import nano, odd_experts_on, plan_of
from questions import answer, questions
from raw_client import bits, raw, step
from swarm_processes import InMemory, until, workers_here

from swarm.client.client import Client, open_client
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.worker import Worker

STORIES = questions("stories")
SYSTEM = STORIES[0].prompt + STORIES[0].answer[:100]
"""What all Sessions begin with; no multiple of a page."""
PROMPTS = [SYSTEM + story.prompt for story in STORIES[1:4]]


@dataclass
class Swarm:
    plan: Plan
    workers: dict[str, Worker]
    client: Client
    told: list[str]

    def tokens(self) -> list[int]:
        """That each Stage has computed."""
        return [self.workers[s.worker].status().tokens for s in self.plan.routes[0].stages]

    def used(self) -> list[int]:
        return [worker.status().kv_used_bytes for worker in self.workers.values()]

    async def empty(self) -> None:
        await until(lambda: not any(self.used()), "pages of closed Sessions stay reserved")


@asynccontextmanager
async def swarm(plan: Plan) -> AsyncIterator[Swarm]:
    told: list[str] = []
    async with workers_here(plan) as workers, open_client(InMemory(plan), Credentials(), told.append) as client:
        yield Swarm(plan, workers, client, told)


async def alone(plan: Plan) -> list[list[int]]:
    """What each prompt is answered by Workers that never saw another."""
    found = []
    for prompt in PROMPTS:
        async with swarm(plan) as made:
            found.append(await answer(made.client.conversation(), prompt, 40))
    return found


@pytest.mark.parametrize("kv", ["", "int8"])
async def test_a_session_skips_what_others_hold_of_its_prompt_and_answers_the_same(kv: str) -> None:
    plan = plan_of([3, 8], odd_experts_on("w2", range(2, 4)), model=replace(nano(), kv=kv), sessions=4)
    want = await alone(plan)
    async with swarm(plan) as made:
        talks = [made.client.conversation() for _ in PROMPTS]
        for talk, prompt, text in zip(talks, PROMPTS, want, strict=True):
            before = made.tokens()
            assert await answer(talk, prompt, 40) == text
            skipped = talk.answer.cached_tokens
            assert len(SYSTEM) <= skipped < len(SYSTEM) + 10 if talk is not talks[0] else not skipped
            rows = len(prompt) - skipped + talk.answer.traversals + talk.answer.drafted
            assert [now - then for now, then in zip(made.tokens(), before, strict=True)] == [rows, rows]
        for talk in talks:
            await talk.close()
        await made.empty()
        assert await answer(late := made.client.conversation(), PROMPTS[1], 40) == want[1]
        assert late.answer.cached_tokens > len(SYSTEM), "what closed Sessions left is there still"


async def test_what_all_stages_hold_counts_and_the_others_are_rewound() -> None:
    plan = plan_of([3, 8], sessions=2)
    async with swarm(plan) as made:
        first = made.client.conversation()
        want = await answer(first, PROMPTS[0], 20)
        await first.close()
        await made.empty()
        cache = made.workers["w1"].epochs.all()[0].cache
        assert cache.reserve(b"greedy", (plan.kv_pages - 3) * plan.page_positions), "all but three pages"
        cache.release(b"greedy")
        again = made.client.conversation()
        assert await answer(again, PROMPTS[0], 20) == want
        assert 0 < again.answer.cached_tokens <= 3 * plan.page_positions < len(PROMPTS[0])


async def test_a_session_whose_lease_ran_out_finds_what_it_left() -> None:
    plan, text = plan_of([3, 8], sessions=2), SYSTEM[:100]
    async with workers_here(plan) as workers, raw(plan) as client:
        session = await client.open(256)
        want = await client.ask(step(session, text, 0))
        for worker in workers.values():
            for each in worker.epochs.all()[0].pool.table.all():
                each.expires_at = 0.0
        await until(lambda: not any(w.status().sessions for w in workers.values()), "the lease does not run out")
        assert await client.reopen(session, 256, text) == 96
        assert bits(*await client.ask(step(session, text, 0))) == bits(*want)


async def test_what_a_draft_guessed_is_shared_with_nobody() -> None:
    plan, text = plan_of([8], sessions=4), SYSTEM[:64]
    async with workers_here(plan), raw(plan) as client:
        session = await client.open(256)
        await client.ask(step(session, text, 0, 60), step(session, text, 60, 64, ask=pb.Ask(rows=4, k=2)))
        assert await client.reopen(b"another session.", 256, text) == 32
        await client.ask(step(session, [*text, 7], 64, 65))
        assert await client.reopen(b"a later session.", 256, text) == 64


async def test_who_edits_what_others_share_waits_for_room_and_they_go_on_unharmed() -> None:
    plan = plan_of([3, 8], sessions=2, context=256)
    async with swarm(plan) as made:
        first, second = made.client.conversation(), made.client.conversation()
        want = await answer(first, [*SYSTEM, 9], 256 - len(SYSTEM) - 1)
        await answer(second, [*SYSTEM, 9], 40)
        async with raw(plan) as client:
            left = made.workers["w0"].epochs.all()[0].cache.free_pages
            filler = await client.open(left * plan.page_positions)
            edited = asyncio.create_task(answer(second, [5, *SYSTEM[1:]], 5))
            await until(lambda: any("number 1 in the queue" in line for line in made.told), "it does not queue")
            assert await answer(first, [*SYSTEM, 9], 256 - len(SYSTEM) - 1) == want
            await client.release(filler)
            assert await edited


async def test_the_middle_of_another_session_is_nobodys_beginning() -> None:
    plan, text = plan_of([8], sessions=4), SYSTEM[:100]
    async with workers_here(plan), raw(plan) as client:
        await client.ask(step(await client.open(256), text, 0))
        request = client.opening(b"in the middle...", 128, text)
        del request.prefix_hashes[:32]
        assert [r.held async for r in client.entry.Open(request) if r.state == pb.OpenReply.OPENED] == [0]
        answered = await client.ask(step(request.session, text[32:], 0))
        assert len(answered) == 1, "it begins with nothing, like every other"


async def test_hundreds_of_random_sessions_through_a_worker_leave_nothing_behind() -> None:
    plan, dice = plan_of([4, 8], sessions=2, context=128), random.Random(3)
    async with workers_here(plan) as workers, raw(plan) as client:
        pools = [worker.epochs.all()[0].pool for worker in workers.values()]
        opened: list[bytes] = []
        for number in range(150):
            text = SYSTEM[: dice.choice([0, 40, 64])] + [dice.randrange(2000) for _ in range(dice.randint(1, 30))]
            if len(opened) == 2:
                await client.release(opened.pop(dice.randrange(2)))
            opened.append(session := number.to_bytes(16))
            held = await client.reopen(session, len(text) + 20, text)
            start = min(held, len(text) - 1)
            await client.ask(step(session, text, start))
            if dice.random() < 0.3:
                at = dice.randrange(len(text))
                await client.ask(step(session, [*text[:at], 1, 2, 3], at))
            assert all(pool.cache.idle_pages <= pool.cache.free_pages <= plan.kv_pages for pool in pools)
        for session in opened:
            await client.release(session)
        for pool in pools:
            assert (len(pool.table), pool.cache.free_pages) == (0, plan.kv_pages)
            assert pool.cache.reserve(b"all of it", plan.kv_pages * plan.page_positions) and not pool.cache.idle_pages
