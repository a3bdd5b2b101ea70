"""Workers of a Plan file, as processes: one fetches only the files that it needs, another takes what it lacks from it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from loopback_hub import COMMIT, REPO, hub_of
from plans import plan_of
from sharded_nano import sharded_nano
from swarm_processes import wait_until_serving

from swarm.weights.describe import describe


@contextmanager
def worker(plan_file: Path, name: str, disk: Path, endpoint: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """One Worker, on a rig with a disk of its own."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SWARM_"))}
    ours |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(disk), "HF_HUB_DISABLE_TELEMETRY": "1", "SWARM_HOME": str(disk)}
    command = [sys.executable, "-m", "swarm.cli.main", "worker", "--plan-file", str(plan_file), "--name", name, *options]
    process = subprocess.Popen(command, env=ours, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(120)
def test_a_worker_fetches_only_the_files_it_needs_and_another_takes_them_from_it_without_the_token(tmp_path: Path) -> None:
    published = sharded_nano(tmp_path / "published")
    model = replace(describe(str(published), "fp32"), source=f"{REPO}@{COMMIT}")
    plan = plan_of([8], [(name, 2, (1, 3, 5, 7)) for name in ("w1",)], model=model)
    same = plan_of([8], [("w2", 2, (1, 3, 5, 7))], model=model)
    files = {}
    for name, each in (("w1", plan), ("w2", same)):
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(each.to_json())
    first, second = plan.worker("w1").address, same.worker("w2").address
    with hub_of(published) as hub, worker(files["w1"], "w1", tmp_path / "a", hub.url) as w1:
        wait_until_serving(first, lambda: w1.poll() is None)
        assert [path.name for path in (tmp_path / "a").rglob("snapshots/*/*.safetensors")] == ["model-00004-of-00009.safetensors"]
        hub.token = "one that the other rig has not"
        hub.sent.clear()
        with worker(files["w2"], "w2", tmp_path / "b", hub.url, "--weights-from", first) as w2:
            wait_until_serving(second, lambda: w2.poll() is None)
        assert not list((tmp_path / "b").rglob("snapshots/*/*.safetensors"))
        assert hub.of_weights() == 0
