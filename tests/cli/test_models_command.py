"""`swarm models`: what lies on the disks of a swarm's rigs, and of this machine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from commands import Ran, is_one_sentence, swarm
from fake_swarm import Door, listening
from test_logs_command import KEY, document, rig

pytest.importorskip("torch")

from swarm.weights.cache.folder import Setting, note
from swarm.worker.rig_servicer import RigServicer

MIB = 2**20


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub with a whole model, one of which a file is missing, and GGUF files of two kinds."""
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))  # for the processes that are started
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))  # for this one, which may have read it before
    config = json.dumps({"torch_dtype": "bfloat16"})
    put(folder, "owner/whole", {"config.json": config, "model.safetensors": bytes(3 * MIB)})
    index = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
    put(
        folder,
        "owner/half",
        {"config.json": config, "model.safetensors.index.json": index, "model-00001-of-00002.safetensors": bytes(MIB)},
    )
    put(folder, "owner/few-bits", {"m.Q4_K_M.gguf": bytes(MIB), "m.Q8_0.gguf": bytes(2 * MIB)})
    return folder


def put(cache: Path, repo: str, files: dict[str, str | bytes]) -> None:
    """A model as huggingface_hub keeps it."""
    home = cache / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    for number, (name, content) in enumerate(files.items()):
        blob = home / "blobs" / f"{number:040}"
        blob.write_bytes(content.encode() if isinstance(content, str) else content)
        (snapshot / name).symlink_to(blob)


def quantized(cache: Path) -> None:
    setting = Setting("ab12", "int4/64", "cpu", "1")
    note(setting.folder(cache), setting, "whole")
    (setting.folder(cache) / "core-000.safetensors").write_bytes(bytes(MIB))


async def run(*words: str) -> Ran:
    return await asyncio.to_thread(swarm, *words, "--key", KEY)


async def test_the_models_of_all_rigs_are_told_with_size_dtype_and_what_is_missing(hub: Path, tmp_path: Path) -> None:
    quantized(tmp_path / "cache")
    async with rig(RigServicer(None, tmp_path / "cache")) as a:
        held = {"model": "whole", "dtype": "int4/64", "waiting": ""}
        async with listening(Door(document(attic=a, garage="127.0.0.1:1") | held), KEY) as door:
            as_json, ran = await run("models", "--json", "--swarm", door), await run("models", "--swarm", door)
    found = json.loads(as_json.out)
    assert found["holds"] == held and found["silent"] == ["garage"] and found["free_bytes"]["attic"] > 0
    told = {(m["rig"], m["model"], m["kind"], m["dtype"], m["whole"]) for m in found["models"]}
    assert told == {
        ("attic", "owner/whole", "hub", "bf16", True),
        ("attic", "owner/half", "hub", "bf16", False),
        ("attic", "owner/few-bits:Q4_K_M", "hub", "Q4_K_M", True),
        ("attic", "owner/few-bits:Q8_0", "hub", "Q8_0", True),
        ("attic", "whole", "quantized", "int4/64", True),
    }
    assert {m["model"]: m["bytes"] // MIB for m in found["models"] if ":" in m["model"]} == {
        "owner/few-bits:Q4_K_M": 1,
        "owner/few-bits:Q8_0": 2,
    }
    assert "the swarm holds whole in int4/64" in ran.out and "in part" in ran.out and "garage does not show" in ran.err


def test_without_a_swarm_it_is_told_what_lies_on_this_machine(hub: Path, own_home: Path) -> None:
    quantized(own_home / "weights")
    ran = swarm("models", "--json")
    assert ran.code == 0 and "this is what lies on this machine" in ran.err
    found = json.loads(ran.out)
    assert found["holds"] is None and {m["kind"] for m in found["models"]} == {"hub", "quantized"}
    table = swarm("models").out
    assert "owner/whole" in table and "bf16" in table and "quantized" in table


def test_a_swarm_that_was_named_and_does_not_answer_is_one_sentence() -> None:
    ran = swarm("models", "--swarm", "127.0.0.1:1", "--key", KEY)
    assert ran.code == 1 and is_one_sentence(ran.err)
