"""A GGUF model on the Hub is described, and its tokenizer given to clients, from its header."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gguf_files import nano_gguf
from loopback_hub import REPO, hub_of

from swarm.weights.describe import assets, describe

LOOK = """
import json, sys
from swarm.weights.describe import client_files, describe
files = {name: data.decode("latin-1") for name, data in client_files(sys.argv[1]).items()}
print(json.dumps([describe(sys.argv[1]).model_id, files]))
"""


def test_of_gguf_on_the_hub_only_headers_and_samples_are_fetched(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    path = nano_gguf(tmp_path / "repo" / "nano.Q8_0.gguf", "Q8_0")
    (tmp_path / "repo" / "README.md").write_text("a model")
    with hub_of(tmp_path / "repo") as hub:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env = ours | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        run = subprocess.run([sys.executable, "-c", LOOK, f"{REPO}:Q8_0"], env=env, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        model_id, files = json.loads(run.stdout)
        assert model_id == describe(str(path)).model_id
        assert {name: data.encode("latin-1") for name, data in files.items()} == assets(path)
        assert hub.sent[path.name] < 1_000_000 < path.stat().st_size
