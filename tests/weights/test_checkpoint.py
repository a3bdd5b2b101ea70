"""Files that are missing, cut short or hostile are refused by name, before memory is taken."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.errors import CorruptWeights, MissingWeights, ModelError
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.header import MAX_HEADER_BYTES, read_header

Write = Callable[..., Path]


def file_of(path: Path, header: Any, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def claim(begin: int = 0, end: int = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_sound_file_is_read_entry_by_entry(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": claim(8, 14, [3], "BF16"), "a": claim(), "none": claim(14, 14, [0, 4])}
    entries = read_header(file_of(tmp_path / "x.safetensors", header, bytes(14))).entries
    assert {name: (e.shape, e.num_bytes) for name, e in entries.items()} == {"b": ((3,), 6), "a": ((2,), 8), "none": ((0, 4), 0)}
    assert entries["b"].offset == entries["a"].offset + 8


HOSTILE: dict[str, Any] = {
    "no JSON": b"{",
    "nested beyond reason": b"[" * 200_000,
    "no object": b"[]",
    "a claim that is no object": {"a": 3},
    "a claim without offsets": {"a": {"dtype": "F32", "shape": [2]}},
    "three offsets": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}},
    "offsets beyond the file": {"a": claim(0, 4_000_000_000, [1_000_000_000])},
    "offsets that run backwards": {"a": claim(8, 0)},
    "negative offsets": {"a": claim(-8, 0)},
    "an absurd shape": {"a": claim(0, 8, [2**62, 2**62])},
    "a negative shape": {"a": claim(0, 8, [-1, -2])},
    "a shape of floats": {"a": claim(0, 8, [2.0])},
    "a shape of booleans": {"a": claim(0, 4, [True])},
    "a shape that is no list": {"a": claim(0, 8, "2")},
    "a hundred dimensions": {"a": claim(0, 4, [1] * 100)},
    "a shape larger than its bytes": {"a": claim(0, 8, [3])},
    "an unknown dtype": {"a": claim(0, 8, [2], "F17")},
    "a dtype that is no text": {"a": claim(0, 8, [2], [1])},
    "overlapping tensors": {"a": claim(), "b": claim(4, 12)},
    "a hole": {"a": claim(0, 2, [1], "F16"), "b": claim(4, 8, [1])},
    "a hole at the start": {"a": claim(4, 8, [1])},
    "bytes that no tensor has": {"a": claim(0, 4, [1])},
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused(tmp_path: Path, header: Any) -> None:
    with pytest.raises(CorruptWeights, match=r"x\.safetensors is damaged: .*fetch it again"):
        read_header(file_of(tmp_path / "x.safetensors", header, bytes(8)))


@pytest.mark.parametrize("length", [9, MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(CorruptWeights, match=f"claims {length} bytes of a file of 10"):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize("size", [0, 3, 8])
def test_a_file_shorter_than_any_header_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(bytes(size))
    with pytest.raises(CorruptWeights):
        read_header(tmp_path / "x.safetensors")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["F32", "BF16"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=40) | st.dictionaries(st.text(max_size=5), json_values, max_size=4), st.binary(max_size=24))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_sound_header_or_a_clear_refusal(tmp_path: Path, header: Any, data: bytes) -> None:
    path = file_of(tmp_path / "x.safetensors", header, data)
    try:
        entries = read_header(path).entries
    except CorruptWeights:
        return
    assert sum(e.num_bytes for e in entries.values()) == len(data)


def test_a_sharded_checkpoint_is_read_from_all_its_files(write: Write) -> None:
    checkpoint = Checkpoint.open(write(shard="20KB"))
    assert len(checkpoint.headers) > 2
    assert "model.layers.2.block_sparse_moe.experts.3.w2.weight" in checkpoint.entries


def test_a_missing_shard_is_named(write: Write) -> None:
    folder = write(shard="20KB")
    missing = sorted(folder.glob("model-*.safetensors"))[1]
    missing.unlink()
    with pytest.raises(MissingWeights, match=missing.name):
        Checkpoint.open(folder)


def test_a_truncated_file_is_named(write: Write) -> None:
    path = write() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptWeights, match=r"model\.safetensors is damaged: it has \d+ bytes where"):
        Checkpoint.open(path.parent)


def test_a_missing_tensor_is_named(write: Write) -> None:
    folder = write()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(MissingWeights, match=r"model\.layers\.3\.input_layernorm\.weight"):
        Checkpoint.open(folder)


def test_a_shape_that_is_not_the_configs_is_named(write: Write) -> None:
    folder = write()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 1}))
    with pytest.raises(CorruptWeights, match=r"k_proj\.weight is \[20, 32\] where the model's config asks for \[10, 32\]"):
        Checkpoint.open(folder)


def test_a_folder_without_weights_or_config_says_which(write: Write, tmp_path: Path) -> None:
    folder = write()
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingWeights, match=r"neither model\.safetensors nor"):
        Checkpoint.open(folder)
    with pytest.raises(MissingWeights, match=r"config\.json"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": ["b"]}}',
     '{"weight_map": {"a": "/etc/x.safetensors"}}', '{"weight_map": {"a": "../x.safetensors"}}',
     '{"weight_map": {"a": "model.bin"}}'],
)  # fmt: skip
def test_a_hostile_index_is_refused(write: Write, index: str) -> None:
    folder = write()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CorruptWeights, match=r"index\.json"):
        Checkpoint.open(folder)


def test_the_checksum_follows_the_content_and_not_the_place(write: Write) -> None:
    one, two = write("one", shard="20KB"), write("two", shard="20KB")
    ids = [Checkpoint.open(folder).model_id() for folder in (one, two)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 32
    path = sorted(two.glob("model-*.safetensors"))[0]
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    assert Checkpoint.open(two).model_id() != ids[0]
    (one / "config.json").write_text((one / "config.json").read_text() + "\n")
    assert Checkpoint.open(one).model_id() != ids[0]


def test_every_refusal_is_a_model_error() -> None:
    assert issubclass(MissingWeights, ModelError)
    assert issubclass(CorruptWeights, ModelError)
