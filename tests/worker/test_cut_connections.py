"""A TCP connection that breaks in the midst of an answer costs a pause and no token: between Workers, and on the client's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from plans import plan_of
from questions import answer, questions
from relay import Relay, relay_to
from swarm_processes import InMemory, until, workers_here

from swarm.client.client import Client, open_client
from swarm.plan import Plan
from swarm.wire.credentials import Credentials

STORY = questions("stories")[0]
PLAN = plan_of([3, 6, 8], context=1280)
Way = tuple[str, str]
"""Who dials whom."""
BETWEEN_WORKERS: tuple[Way, ...] = (("w0", "w1"), ("w1", "w2"))
OF_THE_CLIENT: tuple[Way, ...] = (("client", "w0"), ("client", "w2"))


@asynccontextmanager
async def relayed(ways: Iterable[Way]) -> AsyncIterator[tuple[Client, dict[Way, Relay]]]:
    """A client of three Stages with a relay on each of these ways."""
    async with AsyncExitStack() as stack:
        relays = {way: await stack.enter_async_context(relay_to(PLAN.worker(way[1]).address)) for way in ways}
        workers = await stack.enter_async_context(workers_here(PLAN, commit=False))
        for name, worker in workers.items():
            async for _ in worker.prepare(seen_by(name, relays), name):
                pass
        for worker in workers.values():
            worker.commit(PLAN.epoch)
        source = InMemory(seen_by("client", relays))
        yield await stack.enter_async_context(open_client(source, Credentials())), relays


def seen_by(who: str, relays: Mapping[Way, Relay]) -> Plan:
    """The Plan in which whoever is dialled over a relay has its address."""
    workers = (replace(w, address=relays[who, w.name].address) if (who, w.name) in relays else w for w in PLAN.workers)
    return replace(PLAN, workers=tuple(workers))


async def cut_in_the_midst(client: Client, relay: Relay) -> list[int]:
    """The tokens of an answer during which the relay breaks every connection that goes through it."""
    talk = client.conversation(speculate=False)
    asked = asyncio.create_task(answer(talk, STORY.prompt, len(STORY.answer)))
    await until(lambda: len(talk.answer.tokens) > 5, "no answer begins", 60)
    before = relay.connections
    relay.cut()
    async with asyncio.timeout(60):
        tokens = await asked
    assert before and relay.connections > before, "nothing was cut, or the answer needed nothing of it"
    await talk.close()
    return tokens


async def test_a_connection_between_two_workers_that_is_cut_mid_answer_changes_no_token() -> None:
    async with relayed(BETWEEN_WORKERS) as (client, relays):
        for relay in relays.values():
            assert await cut_in_the_midst(client, relay) == STORY.answer


async def test_a_connection_of_the_client_that_is_cut_mid_answer_changes_no_token() -> None:
    async with relayed(OF_THE_CLIENT) as (client, relays):
        for relay in relays.values():
            assert await cut_in_the_midst(client, relay) == STORY.answer
