"""Workers in processes of their own that start again from what they cached."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from plans import nano, plan_of
from questions import answer, questions
from swarm_processes import InMemory, processes, status_at, workers_here

from swarm.client.client import open_client
from swarm.weights.cache.folder import kept
from swarm.weights.source import NANO_FOLDER
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import weights_pb2 as pb
from swarm.worker.holdings import parts_of
from swarm.worker.worker import Worker

ASKED = questions("eval")[13]
"""Its best two logits are 10 apart at each token in int4: how many rows a prompt goes through in changes none."""
TOKENS = len(ASKED.answer)
ELSEWHERE = "/only/on/the/head"


async def test_a_worker_killed_and_started_again_needs_none_of_the_models_files_and_changes_no_token(
    tmp_path: Path, own_home: Path
) -> None:
    folder = shutil.copytree(NANO_FOLDER, tmp_path / "model")
    plan = plan_of([4, 8], model=nano("int4", str(folder)))
    source = InMemory(plan)
    with processes(plan, tmp_path) as swarm:
        async with open_client(source, Credentials()) as client:
            whole, talk = client.conversation(), client.conversation()
            want = await answer(whole, ASKED.prompt, TOKENS)
            assert await answer(talk, ASKED.prompt, TOKENS // 2) == want[: TOKENS // 2]
            before = {w.name: status_at(w.address) for w in plan.workers}
            shutil.rmtree(folder)
            for name in ("w0", "w1"):
                swarm.kill(name)
                swarm.start(name)
            swarm.wait()
            assert await answer(talk, ASKED.prompt, TOKENS) == want
            for worker in plan.workers:
                was, now = before[worker.name], status_at(worker.address)
                assert was is not None and now is not None
                assert now.weights_bytes == was.weights_bytes
                assert now.pid != was.pid
    assert kept(own_home / "weights")[0].parts == sum(len(parts_of(plan, w.name)) for w in plan.workers)


async def test_what_came_from_another_rig_is_asked_for_once(tmp_path: Path) -> None:
    plan = plan_of([6, 8], model=replace(nano("fp32"), source=ELSEWHERE))
    spec = plan.worker("w1")
    async with workers_here(plan, commit=False, only=["w0"]) as workers:
        async for _ in workers["w0"].prepare(plan, "w0", str(NANO_FOLDER)):
            pass
        for peers in ([pb.Peer(address=plan.worker("w0").address)], []):
            worker = Worker("w1", "cpu", 1, spec.memory_bytes, Credentials(), tmp_path)
            async for _ in worker.prepare(plan, "w1", "", False, peers):
                pass
            assert worker.status().weights_bytes == spec.weights_bytes
            await worker.close()
    assert [k.parts for k in kept(tmp_path)] == [len(parts_of(plan, "w1"))]
