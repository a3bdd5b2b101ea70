"""Agents on one real Ray node: what they tell Ray's metrics, read back from where Prometheus reads it, and what they pass on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from claimed_ports import free_range
from prometheus_client.parser import text_string_to_metric_families
from real_swarms import ROOT, TOKEN

from cluster.metrics import METRICS
from cluster.ports import Ports
from cluster.ray_node import RayNode, RayNodeSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]
DEADLINE_S = 150.0
CHOSEN = "ray_swarm_choices_total"
Samples = Mapping[str, list[tuple[Mapping[str, str], float]]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RayNode]:
    folder = Path(tempfile.mkdtemp(prefix="swarm-", dir="/tmp"))
    settings = RayNodeSettings("127.0.0.1", Ports.lay_out(free_range(), 1), TOKEN, folder, "rig-id")
    node = RayNode(settings, {**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        await node.start()
        yield node
    finally:
        await node.stop()


async def driver(node: RayNode, program: str) -> asyncio.subprocess.Process:
    """A program beside this file, on the node."""
    return await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name(program)), node.settings.gcs, node.settings.rig_id,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=node.environment,
    )  # fmt: skip


async def test_prometheus_finds_every_metric_and_counters_go_on_when_an_agent_is_replaced(node: RayNode) -> None:
    agents = await driver(node, "own_metrics.py")
    assert agents.stdin and agents.stdout
    first = await exported(node.settings, lambda now: chosen(now) > 0)
    for name, metric in METRICS.items():
        (tags, _), *more = first[f"ray_{name}_total" if metric.counter else f"ray_{name}"]
        assert not more and tags.items() >= {"rig": "desk", "device": "cuda:0", "worker": "desk/cuda:0"}.items()
    assert {name: first[f"ray_swarm_{name}"][0][1] for name in ("up", "blocks", "weights_bytes", "kv_pages_used")} == {
        "up": 1, "blocks": 1, "weights_bytes": 400, "kv_pages_used": 1,
    }  # fmt: skip
    assert first["ray_swarm_busy_share"][0][1] == pytest.approx(0.2)
    assert first["ray_swarm_hop_s"][0][1] == pytest.approx(0.002)
    assert first["ray_swarm_predicted_tokens_per_s"][0][1] == 20
    ((tags, counted),) = first[CHOSEN]
    assert tags.items() >= {"block": "1", "expert": "1"}.items()
    agents.stdin.write(b"\n")
    assert int(json.loads(await agents.stdout.readline())) >= 2
    # Ray keeps the counter of the Agent that is gone, and forgets its gauges after some seconds.
    again = await exported(node.settings, lambda now: chosen(now) > counted and len(now["ray_swarm_blocks"]) == 1)
    agents.stdin.write_eof()
    looks = int(json.loads(await agents.stdout.readline()))
    assert 10 <= counted < chosen(again) <= 10 * looks
    await agents.wait()


async def test_a_loading_that_is_called_off_ends_on_the_worker_too(node: RayNode) -> None:
    said, _ = await (await driver(node, "own_agent.py")).communicate()
    assert said.decode().split("\n")[:2] == ["attic/cpu: prepare 7", "attic/cpu: called off 7"]


def chosen(now: Samples) -> float:
    """What the Agent that knows most says that its Worker counted."""
    return max((value for _, value in now.get(CHOSEN, ())), default=0.0)


async def exported(node: RayNodeSettings, there: Callable[[Samples], bool]) -> Samples:
    """What the node exports once all that is awaited is there; found as Prometheus finds it, by Ray's own file."""
    found: Samples = {}
    async with asyncio.timeout(DEADLINE_S):
        while not found.get(CHOSEN) or not there(found):
            await asyncio.sleep(0.5)
            found = await asyncio.to_thread(_scrape, node.session_folder / "prom_metrics_service_discovery.json")
    return found


def _scrape(discovery: Path) -> dict[str, list[tuple[Mapping[str, str], float]]]:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    groups = json.loads(discovery.read_text()) if discovery.exists() else []
    for target in {t for group in groups for t in group["targets"]}:
        try:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as reply:
                text = reply.read().decode()
        except OSError:
            continue  # in the file before it listens
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found
