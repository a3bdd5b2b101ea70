"""After a loss the Stages before the lost one compute again what it needs; those behind it keep what they hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plans import plan_of
from questions import GREEDY, questions
from swarm_processes import InMemory, prepare, workers_here

from swarm.client.client import open_client
from swarm.plan import PIECE_ROWS
from swarm.wire.credentials import Credentials


@pytest.mark.parametrize("lost", ["w0", "w1", "w2"])
async def test_the_stages_behind_the_lost_one_compute_nothing_again_but_the_last_piece(lost: str) -> None:
    story = max(questions("eval"), key=lambda q: len(q.prompt))
    plan = plan_of([3, 6, 8], context=1280)
    source = InMemory(plan)
    others = [w.name for w in plan.workers if w.name != lost]
    async with workers_here(plan) as workers, open_client(source, Credentials()) as client:
        talk = client.conversation(speculate=False)
        pieces = talk.generate(story.prompt, GREEDY, len(story.answer))
        while len(talk.answer.tokens) < 3:
            await anext(pieces)
        # It loses all that it holds, as a Worker does that is started anew, and the same Plan has another epoch.
        again = replace(plan, epoch=2)
        for pool in workers[lost].epochs.pools():
            for session in pool.table.all():
                session.truncate(0)
                session.held.clear()
        await prepare(workers, again)
        before = {name: worker.flow.tokens for name, worker in workers.items()}
        for worker in workers.values():
            worker.commit(2)
        await source.switch(again)
        for worker in workers.values():
            await worker.drain(1, 5.0)
        async for _ in pieces:
            pass
        assert talk.answer.tokens == story.answer
        rows = {name: worker.flow.tokens - before[name] for name, worker in workers.items()}
    said, place = len(story.answer), int(lost[1])
    for name in others:
        if int(name[1]) > place:
            assert rows[name] <= said + 2 * PIECE_ROWS, rows
        else:
            assert rows[name] >= len(story.prompt), rows
    assert rows[lost] >= len(story.prompt), rows
