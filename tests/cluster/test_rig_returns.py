"""A rig that was lost and returns, under another address, gets the Blocks that it had, from its own disk."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from loopback_hub import REPO, hub_of
from real_workers import real_swarm
from sharded_nano import sharded_nano

from cluster import agents
from cluster.target import Target

pytest.importorskip("torch")

MEMORY = 250 * 2**20
DEADLINE_S = 60.0


@pytest.mark.timeout(170)
async def test_a_lost_rig_returns_under_another_address_to_its_old_blocks_and_reads_no_byte_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "MEASURE_S", 0.2)
    target = Target(REPO, "fp32", sessions=2, context=256, spread=True)
    with hub_of(sharded_nano(tmp_path / "published")) as hub:
        hub.token = "hf_right"
        async with real_swarm(target, tmp_path) as swarm:
            swarm.caches = True

            async def join(rig: str) -> None:
                key = {"HF_TOKEN": "hf_right"} if rig == "a" else {}
                own = {"HF_HOME": str(tmp_path / rig), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
                await swarm.join(rig, MEMORY, **own, **key)

            for rig in "abc":
                await join(rig)
            before, lost = swarm.plan, swarm.plan.worker("c/cpu")
            assert swarm.brings[before.epoch]["c/cpu"] > 0  # only the head can ask the Hub
            os.kill(swarm.workers["c"].pid, signal.SIGKILL)
            swarm.coordinator.report_failure("c/cpu")
            async with asyncio.timeout(DEADLINE_S):
                while (plan := swarm.coordinator.published.plan) is None or "c/cpu" in {w.name for w in plan.workers}:
                    await asyncio.sleep(0.05)
            given = hub.of_weights()
            await join("c")
            after = swarm.plan
    assert after.worker("c/cpu").address != lost.address
    assert after.stage_of("c/cpu", 0) == before.stage_of("c/cpu", 0)
    assert set(swarm.brings[after.epoch].values()) == {0} and hub.of_weights() == given
    assert swarm.loads[after.epoch]["c/cpu"] == lost.weights_bytes
