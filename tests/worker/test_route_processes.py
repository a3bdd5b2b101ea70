"""Two Routes of Worker processes without Ray: Sessions on both, and one Route killed under them."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from questions import answer, questions
from swarm_processes import Processes, processes, status_at
from wider_plans import routes_plan

from swarm.client.client import open_client
from swarm.client.plan_source import FilePlan
from swarm.wire.credentials import Credentials

STORIES = [*questions("stories"), *questions("eval")][:4]
TWO = ([("a0", 4), ("a1", 8)], [("b0", 8)])


def sessions(swarm: Processes, *names: str) -> list[int]:
    statuses = [status_at(swarm.plan.worker(name).address) for name in names]
    return [status.sessions if status else -1 for status in statuses]


async def test_killing_a_worker_of_one_route_moves_its_sessions_to_the_other_and_changes_no_token(tmp_path: Path) -> None:
    with processes(routes_plan(*TWO, context=1280), tmp_path) as swarm:
        told: list[str] = []
        async with open_client(FilePlan(swarm.plan_file), Credentials(), told.append) as client:
            talks = [client.conversation() for _ in STORIES]
            asked = [asyncio.create_task(answer(talk, q.prompt, len(q.answer))) for talk, q in zip(talks, STORIES, strict=True)]
            while not all(len(talk.answer.tokens) > 10 for talk in talks):
                await asyncio.sleep(0.01)  # between two looks
            assert await asyncio.to_thread(sessions, swarm, "a0", "a1", "b0") == [2, 2, 2]
            swarm.kill("a1")
            async with asyncio.timeout(60):
                assert await asyncio.gather(*asked) == [q.answer for q in STORIES]
            assert any("another route" in each for each in told)
            async with asyncio.timeout(60):  # that Route is told in the background
                while await asyncio.to_thread(sessions, swarm, "a0", "b0") != [0, 4]:
                    await asyncio.sleep(0.05)
            for talk in talks:
                await talk.close()


async def test_an_entry_that_says_nothing_keeps_nobody_waiting_who_has_another_route(tmp_path: Path) -> None:
    with processes(routes_plan(*TWO), tmp_path) as swarm:
        swarm.signal("a0", signal.SIGSTOP)
        try:
            async with open_client(FilePlan(swarm.plan_file), Credentials()) as client, asyncio.timeout(60):
                talks = [client.conversation() for _ in STORIES]
                asked = (answer(talk, q.prompt, 20) for talk, q in zip(talks, STORIES, strict=True))
                assert await asyncio.gather(*asked) == [q.answer[:20] for q in STORIES]
                assert await asyncio.to_thread(sessions, swarm, "b0") == [4]
        finally:
            swarm.signal("a0", signal.SIGCONT)
