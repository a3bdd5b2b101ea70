"""GPTQ and AWQ checkpoints stand for the weights that their formats define, code for code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_files import Packed, awq, gptq
from safetensors.torch import load_file, save_file

from swarm.errors import CorruptWeights, MissingWeights, ModelError
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.header import read_header
from swarm.weights.packed import packed_entries
from swarm.weights.read import form_of, read_codes, read_into

Write = Callable[..., Path]
WHERE = Path("config.json")


def config_of(method: str = "gptq", **more: Any) -> dict[str, Any]:
    return {"quant_method": method, "bits": 4, "group_size": 128} | more


def check(folder: Path, packed: Packed, config: dict[str, Any], form: str) -> None:
    """What is read of a file with this one matrix is the matrix."""
    save_file({f"m.{name}": x for name, x in packed.tensors.items()}, folder / "x.safetensors")
    entries = packed_entries(
        read_header(folder / "x.safetensors").entries, json.dumps({"quantization_config": config}).encode(), WHERE
    )
    entry = entries["m.weight"]
    assert entry.shape == packed.dense.shape
    assert str(form_of(entry)) == form
    codes = read_codes(entry)
    assert codes is not None
    dense = torch.empty(entry.shape)
    read_into(dense, entry)
    want = torch.from_numpy(packed.dense).float()
    for got in (codes.dense(), dense):
        assert (got - want).abs().max() <= 1e-6 * want.abs().max()
    assert len(np.unique(codes.q)) == 2 ** config["bits"]  # the codes themselves, not some made of the weights


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(
    ("bits", "group", "form"),
    [(4, 32, "int4/32"), (4, 64, "int4"), (4, 128, "int4/128"), (4, 256, "int4/128"), (4, -1, "int4/128"), (4, 16, "int8/16"),
     (8, 32, "int8/32"), (8, 128, "int8/32"), (8, -1, "int8/32"), (8, 16, "int8/16")],
)  # fmt: skip
def test_gptq_is_read_code_for_code(tmp_path: Path, bits: int, group: int, form: str, act_order: bool, v2: bool) -> None:
    packed = gptq(24, 512, bits, group, act_order, v2)
    check(tmp_path, packed, config_of(bits=bits, group_size=group, checkpoint_format="gptq_v2" if v2 else "gptq"), form)


def test_gptq_without_a_format_has_zeros_less_one_and_may_lack_the_order(tmp_path: Path) -> None:
    packed = gptq(8, 160)  # the last group has 32
    del packed.tensors["g_idx"]
    check(tmp_path, packed, config_of(), "int4/128")


@pytest.mark.parametrize(("group", "form"), [(32, "int4/32"), (64, "int4"), (128, "int4/128"), (-1, "int4/128")])
def test_awq_is_read_code_for_code(tmp_path: Path, group: int, form: str) -> None:
    check(tmp_path, awq(24, 256, group), config_of("awq", group_size=group, version="GEMM", zero_point=True), form)


def test_a_matrix_read_in_pieces_is_the_same_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.weights.unpack.CHUNK_WEIGHTS", 5 * 256)
    check(tmp_path, gptq(24, 256, act_order=True), config_of(), "int4/128")
    check(tmp_path, awq(24, 256), config_of("awq"), "int4/128")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (config_of(bits=3), "have 3 bits"), (config_of(bits=2), "have 2 bits"), (config_of("awq", bits=8), "have 8 bits"),
        (config_of(bits=None), "have None bits"), (config_of(group_size=48), "48 weights share a scale"),
        (config_of(group_size="all"), "'all' weights share a scale"), (config_of("awq", version="gemv"), "laid out for 'gemv'"),
        (config_of(checkpoint_format="marlin"), "laid out for 'marlin'"), (config_of("bitsandbytes"), "by 'bitsandbytes'"),
        ({}, "quantized by None"), ([], "misstates"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(config: Any, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        packed_entries({}, json.dumps({"quantization_config": config}).encode(), WHERE)


def test_packed_matrices_without_a_word_of_how_are_refused(tmp_path: Path) -> None:
    save_file({f"m.{name}": x for name, x in gptq(8, 128).tensors.items()}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"does not say how m\.qweight is quantized"):
        packed_entries(read_header(tmp_path / "x.safetensors").entries, b"{}", WHERE)


@pytest.mark.parametrize("part", ["qzeros", "scales"])
def test_a_part_that_is_missing_or_of_another_shape_is_named(tmp_path: Path, part: str) -> None:
    packed = gptq(16, 256)
    packed.tensors[part] = packed.tensors[part][:, :-1].contiguous()
    with pytest.raises(CorruptWeights, match=rf"m\.{part} is .* does not fit"):
        check(tmp_path, packed, config_of(), "")
    del packed.tensors[part]
    with pytest.raises(MissingWeights, match="qzeros or scales of m are not there"):
        check(tmp_path, packed, config_of(), "")


def test_groups_of_unequal_size_are_refused(tmp_path: Path) -> None:
    packed = gptq(16, 256)
    packed.tensors["g_idx"][0] = 1
    with pytest.raises(CorruptWeights, match="groups of unequal size"):
        check(tmp_path, packed, config_of(), "int4/128")


def test_a_gptq_checkpoint_has_its_packed_matrices_and_its_plain_ones(write: Write) -> None:
    folder = write(hidden_size=64, intermediate_size=64, head_dim=16)
    tensors = load_file(folder / "model.safetensors")
    packed: dict[str, Packed] = {}
    for name in [n for n in tensors if n.endswith("_proj.weight") or ".experts." in n]:
        outputs, inputs = tensors.pop(name).shape
        packed[name] = gptq(outputs, inputs, group=32, seed=len(packed))
        tensors |= {f"{name.removesuffix('.weight')}.{part}": x for part, x in packed[name].tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": config_of(group_size=32)}))
    checkpoint = Checkpoint.open(folder)
    assert len(packed) == 3 * (4 + 3 * 4)
    for name, one in packed.items():
        got = torch.empty(one.dense.shape)
        read_into(got, checkpoint.entries[name])
        assert torch.allclose(got.double(), torch.from_numpy(one.dense), rtol=1e-6, atol=1e-8)
    assert form_of(checkpoint.entries["model.layers.0.block_sparse_moe.gate.weight"]) is None
