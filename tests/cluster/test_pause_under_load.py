"""`swarm pause` and `swarm resume` as a person runs them, while real Workers answer."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from real_workers import CREDENTIALS, RealSwarm, real_swarm

from cluster.planner import Load, needed_bytes
from cluster.target import Target

pytest.importorskip("torch")

from swarm.client.client import Client, open_client
from swarm.client.plan_source import SwarmPlan
from swarm.client.sampling import Sampling
from swarm.weights.describe import describe

LOAD = Load(2, 512)
QUESTIONS = ("Once upon a time", "The capital of France")
SAMPLING = Sampling(temperature=1.0, seed=3)


async def answer(client: Client, question: str, number: int) -> str:
    conversation = client.conversation()
    try:
        pieces = [p async for p in conversation.generate(client.tokenizer.encode(question), SAMPLING, number, ())]
    finally:
        await conversation.close()
    return "".join(piece.text for piece in pieces)


async def command(swarm: RealSwarm, *words: str) -> tuple[int, str, str]:
    code = "from swarm.cli.main import main; main()"
    ran = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *words, "--swarm", swarm.address, "--key", CREDENTIALS.key,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await ran.communicate()
    return ran.returncode or 0, out.decode(), err.decode()


def held(swarm: RealSwarm, worker: str) -> int:
    memory = next(w["memory"] for w in swarm.coordinator.status()["workers"] if w["name"] == worker)
    return int(memory["weights_bytes"]) + int(memory["kv_bytes"])


@pytest.mark.timeout(170)
async def test_pausing_a_rig_under_load_loses_no_answer_and_changes_no_token(tmp_path: Path) -> None:
    need = needed_bytes(describe("nano", "fp32"), LOAD)
    async with real_swarm(Target("nano", "fp32", LOAD.sessions, LOAD.context), tmp_path) as swarm:
        with pytest.raises(AssertionError, match="needs"):  # one of them does not hold it
            await swarm.join("a", need * 3 // 4)
        for rig in ("b", "c"):
            await swarm.join(rig, need * 3 // 4)
        async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS) as client:
            whole = [await answer(client, question, 160) for question in QUESTIONS]
            gone = swarm.plan.routes[0].stages[0].worker
            rig = gone.partition("/")[0]
            answering = [asyncio.create_task(answer(client, question, 160)) for question in QUESTIONS]
            code, _, err = await command(swarm, "pause", rig)
            assert code == 2 and "free in about" in err and "tok/s" in err and "give --yes" in err
            code, out, err = await command(swarm, "pause", rig, "--device", "cpu", "--yes")
            assert code == 0 and out.startswith(f"{rig} cpu is paused: ") and "given back" in out, err
            assert await asyncio.gather(*answering) == whole
            assert gone not in {w.name for w in swarm.plan.workers} and held(swarm, gone) == 0
            assert [await answer(client, question, 160) for question in QUESTIONS] == whole

            # Without a second one there is no model: that is told, and the answer goes on when it is back.
            other = next(w.rig for w in swarm.plan.workers)
            answering = [asyncio.create_task(answer(client, question, 160)) for question in QUESTIONS]
            code, out, err = await command(swarm, "pause", other, "--yes")
            assert code == 0 and "does not hold the model" in err and "the swarm needs" in out
            assert swarm.coordinator.published.plan is None and held(swarm, f"{other}/cpu") == 0
            code, out, _ = await command(swarm, "resume", other)
            assert code == 0 and out == f"{other} cpu is planned on again\n"
            assert await asyncio.gather(*answering) == whole
        code, _, err = await command(swarm, "pause")
        assert code == 2 and "this machine is none of its rigs: give one of a, b, c" in err
        code, _, err = await command(swarm, "chat", "--via", "attic", "hello")
        assert code == 2 and "attic is no rig of the swarm" in err and "give one of a, b, c" in err
        code, _, err = await command(swarm, "chat", "--via", "a", "hello")
        assert code == 1 and "a offers no Decoder" in err
        code, _, err = await command(swarm, "chat", "--via", "a", "--trace", "hello")
        assert code == 2 and "--via" in err
        code, _, err = await command(swarm, "pause", "attic", "--yes")
        assert code == 1 and "attic is no rig of this swarm: it has a, b, c" in err
