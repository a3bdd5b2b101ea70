"""Workers in processes of their own that start again from what they cached."""

from __future__ import annotations

import shutil
from pathlib import Path

from plans import nano, plan_of
from questions import answer, questions
from swarm_processes import InMemory, processes, status_at

from swarm.client.client import open_client
from swarm.weights.cache.folder import kept
from swarm.weights.source import NANO_FOLDER
from swarm.wire.credentials import Credentials
from swarm.worker.holdings import parts_of

STORY = questions("stories")[0]
TOKENS = 40


async def test_a_worker_killed_and_started_again_needs_none_of_the_models_files_and_changes_no_token(
    tmp_path: Path, own_home: Path
) -> None:
    folder = shutil.copytree(NANO_FOLDER, tmp_path / "model")
    plan = plan_of([4, 8], model=nano("int4", str(folder)))
    source = InMemory(plan)
    with processes(plan, tmp_path) as swarm:
        async with open_client(source, Credentials()) as client:
            whole, talk = client.conversation(), client.conversation()
            want = await answer(whole, STORY.prompt, TOKENS)
            assert await answer(talk, STORY.prompt, TOKENS // 2) == want[: TOKENS // 2]
            before = {w.name: status_at(w.address) for w in plan.workers}
            shutil.rmtree(folder)
            for name in ("w0", "w1"):
                swarm.kill(name)
                swarm.start(name)
            swarm.wait()
            assert await answer(talk, STORY.prompt, TOKENS) == want
            for worker in plan.workers:
                was, now = before[worker.name], status_at(worker.address)
                assert was is not None and now is not None
                assert now.weights_bytes == was.weights_bytes
                assert now.pid != was.pid
    assert kept(own_home / "weights")[0].parts == sum(len(parts_of(plan, w.name)) for w in plan.workers)
