"""Rigs with real Workers, each with a disk of its own, and a model that only a Hub on loopback, or only the head, has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from loopback_hub import COMMIT, REPO, LoopbackHub, hub_of
from real_workers import RealSwarm, real_swarm
from sharded_nano import sharded_nano

from cluster import agents
from cluster.target import Target
from swarm.errors import MissingWeights

pytest.importorskip("torch")

MEMORY = 250 * 2**20
HEADERS = 3 * 2**20
"""More than all headers and samples take; a file has about 3.5 MB."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sharded_nano(tmp_path / "published")


@pytest.fixture
async def hub(folder: Path) -> AsyncIterator[LoopbackHub]:
    with hub_of(folder) as hub:
        yield hub


@pytest.fixture
async def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RealSwarm]:
    monkeypatch.setattr(agents, "MEASURE_S", 0.2)
    async with real_swarm(Target("nano", "fp32", sessions=2, context=256, spread=True), tmp_path) as found:
        yield found


def disk(tmp_path: Path, rig: str, hub: LoopbackHub, **more: str) -> dict[str, str]:
    """A rig's own environment: its folders are nobody else's."""
    return {"HF_HOME": str(tmp_path / rig), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def fetched(tmp_path: Path, rig: str) -> set[str]:
    return {path.name for path in (tmp_path / rig).rglob("snapshots/*/*.safetensors")}


async def load(swarm: RealSwarm, source: str) -> list[str]:
    """What is said meanwhile: what each rig takes from where."""
    said: list[str] = []
    async for progress in swarm.coordinator.change(lambda _: Target(source, "fp32", sessions=2, context=256, spread=True)):
        said += [line for line in progress.lines if line not in said]
    return said


async def test_the_head_alone_needs_the_token_and_each_file_comes_from_the_hub_once(
    swarm: RealSwarm, hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    await swarm.join("a", MEMORY, **disk(tmp_path, "a", hub, HF_TOKEN="hf_right"))
    before = await swarm.join("b", MEMORY, **disk(tmp_path, "b", hub))
    hub.token = "hf_another"
    with pytest.raises(MissingWeights, match="HF_TOKEN"):
        await load(swarm, REPO)
    assert swarm.plan == before and hub.of_weights() == 0
    hub.token = "hf_right"
    said = await load(swarm, REPO)
    assert swarm.plan.model.source == f"{REPO}@{COMMIT}"
    assert {w.rig for w in swarm.plan.workers} == {"a", "b"}
    names = {path.name for path in folder.glob("*.safetensors")}
    assert (fetched(tmp_path, "a"), fetched(tmp_path, "b")) == (names, set())
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert total <= hub.of_weights() <= total + HEADERS
    assert any(line.startswith("a fetches 9 files") for line in said)
    assert any(line.startswith("b takes") and "from a, straight into memory" in line for line in said)
