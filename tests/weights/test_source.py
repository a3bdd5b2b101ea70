"""Where a model comes from, and what a Plan is told of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.client.tokenizer import read_tokenizer
from swarm.config import ModelConfig
from swarm.errors import MissingWeights, ModelError, UsageError
from swarm.weights.checkpoint import OTHER_TOKENIZERS
from swarm.weights.describe import assets, describe
from swarm.weights.source import resolve

Write = Callable[..., Path]


def test_nano_is_the_embedded_model() -> None:
    model = describe("nano")
    assert (model.name, model.source, model.dtype) == ("nano", "nano", "bf16")
    assert (model.config.num_blocks, model.config.num_experts, model.config.hidden) == (8, 8, 256)
    assert model == describe("nano")
    assert ModelConfig.from_folder(resolve("nano")) == model.config


def test_a_folder_is_named_by_its_last_part_and_found_by_its_absolute_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("my-mixtral")
    monkeypatch.chdir(folder.parent)
    model = describe("my-mixtral", "fp16")
    assert (model.name, model.source, model.dtype) == ("my-mixtral", str(folder), "fp16")


def test_what_is_neither_folder_nor_hub_id_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no folder no-such-model"):
        resolve("no-such-model")
    with pytest.raises(UsageError, match=r"no file models/x\.gguf"):
        resolve("models/x.gguf")
    with pytest.raises(UsageError, match="fp8 is no way to keep weights"):
        describe("nano", "fp8")


def hub_cache(cache: Path, model: str, folder: Path) -> None:
    """Put a folder where huggingface_hub keeps what it has fetched."""
    at = cache / f"models--{model.replace('/', '--')}"
    (at / "refs").mkdir(parents=True)
    (at / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, at / "snapshots" / ("0" * 40))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_a_hub_id_is_served_from_the_local_cache_without_a_network(write: Write, tmp_path: Path, offline: None) -> None:
    folder = write(shard="20KB")
    hub_cache(tmp_path / "cache", "owner/some-mixtral", folder)
    model = describe("owner/some-mixtral", cache=tmp_path / "cache")
    assert (model.name, model.source) == ("some-mixtral", f"owner/some-mixtral@{'0' * 40}")
    assert model.model_id == describe(str(folder)).model_id


def test_a_hub_id_that_cannot_be_had_is_said_in_one_sentence(write: Write, tmp_path: Path, offline: None) -> None:
    with pytest.raises(MissingWeights, match="no folder owner/some-mixtral, and the Hub's cache here lacks it") as caught:
        resolve("owner/some-mixtral", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    hub_cache(tmp_path / "cache", "owner/half", write(shard="20KB"))
    next((tmp_path / "cache").rglob("model-00002*")).unlink()
    with pytest.raises(MissingWeights):
        describe("owner/half", cache=tmp_path / "cache")


def test_assets_are_what_a_client_needs_and_no_weights() -> None:
    found = assets(resolve("nano"))
    assert set(found) == {
        "config.json", "generation_config.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    }  # fmt: skip
    assert all(found.values())


@pytest.mark.parametrize("name", OTHER_TOKENIZERS)
def test_a_folder_whose_tokenizer_nobody_reads_is_refused_by_its_name_with_what_to_add(tmp_path: Path, name: str) -> None:
    shutil.copy(resolve("nano") / "config.json", tmp_path)
    (tmp_path / name).write_bytes(b"{}" * 9)
    with pytest.raises(ModelError, match=f"only as {name}, which swarm cannot read: add its tokenizer.json or tokenizer.model"):
        read_tokenizer(assets(tmp_path))
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    assert set(assets(tmp_path)) == {"config.json", "tokenizer.json"}, "what stands beside one that is read is not needed"


def test_describing_a_model_needs_neither_torch_nor_ray() -> None:
    code = "import sys; from swarm.weights.describe import describe; describe('nano'); print({'torch', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
