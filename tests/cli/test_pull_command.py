"""`swarm pull`: a model comes from the Hub without a swarm and without being loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from loopback_hub import REPO, hub_of
from sharded_nano import sharded_nano


def pull(home: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SWARM_"))}
    ours |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "swarm.cli.main", "pull", *arguments]
    return subprocess.run(command, env=ours, text=True, capture_output=True, timeout=60)


def test_pull_fetches_a_model_once_and_says_where_it_is(tmp_path: Path) -> None:
    published = sharded_nano(tmp_path / "published")
    sizes = {path.name: path.stat().st_size for path in published.glob("*.safetensors")}
    with hub_of(published) as hub:
        done = pull(tmp_path / "home", hub.url, REPO, "--json", "--cache", str(tmp_path / "elsewhere"))
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert {file["name"]: file["bytes"] for file in document["files"]} == sizes
        assert document["bytes"] == sum(sizes.values()) == hub.of_weights()
        assert Path(document["folder"]).is_relative_to(tmp_path / "elsewhere" / "hub")
        assert "from the Hub into" in done.stderr and "free)" in done.stderr
        again = pull(tmp_path / "home", hub.url, REPO, "--cache", str(tmp_path / "elsewhere"))
        assert document["folder"] in again.stdout and hub.of_weights() == sum(sizes.values())
        assert not again.stderr
        wrong = pull(tmp_path / "home", hub.url, "owner/nothing")
        assert wrong.returncode == 1 and wrong.stderr.startswith("swarm: ") and "Traceback" not in wrong.stderr
