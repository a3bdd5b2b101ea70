"""A model in GGUF is the model that it was converted from: config, names, rows and experts, in one file or several."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType
from gguf_files import Array, converted, metadata_of, tensors_of, write_gguf
from safetensors.torch import save_file

from swarm.config import ModelConfig
from swarm.errors import CorruptWeights, MissingWeights, ModelError, UnknownArchitecture
from swarm.weights import names
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.describe import describe
from swarm.weights.file import LocalFile
from swarm.weights.gguf.header import gguf_header_of
from swarm.weights.read import read_into

Write = Callable[..., Path]
SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 8,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "Llama", {}),
    "llama with biases": ("llama", "Llama", {"attention_bias": True}),
    "llama 3.1, tied": ("llama", "Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", "Qwen2", {}),
    "qwen3": ("qwen3", "Qwen3", {}),
    "qwen2moe": ("qwen2moe", "Qwen2Moe", MOE | {"shared_expert_intermediate_size": 48, "norm_topk_prob": False}),
    "qwen3moe": ("qwen3moe", "Qwen3Moe", MOE | {"norm_topk_prob": True}),
}


def tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    entry = checkpoint.entries[name]
    out = torch.empty(entry.shape)
    read_into(out, entry)
    return out


def same_weights(one: Checkpoint, two: Checkpoint) -> bool:
    wanted = [name for name, _ in names.expected(one.config, one.entries)]
    return all(torch.equal(tensor(one, name), tensor(two, name)) for name in wanted)


def mixtral(
    folder: Path, path: Path, kind: str = "F32", merged: bool = True, parts: int = 1, metadata: Mapping[str, Any] | None = None
) -> Path:
    config = json.loads((folder / "config.json").read_text())
    tensors = converted(tensors_of(folder), "llama", config["num_attention_heads"], config["num_key_value_heads"], merged)
    return write_gguf(path, "llama", tensors, metadata_of("llama", config) | dict(metadata or {}), kind, parts)


@pytest.fixture
def folder(write: Write) -> Path:
    return write(hidden_size=64, intermediate_size=96, head_dim=8)


@pytest.mark.parametrize("merged", [True, False], ids=["merged experts", "one tensor an expert"])
def test_mixtral_is_the_same_model_in_both_formats(folder: Path, tmp_path: Path, merged: bool) -> None:
    plain, made = Checkpoint.open(folder), Checkpoint.open(mixtral(folder, tmp_path / "x.gguf", merged=merged))
    assert made.config == replace(plain.config, dtype="fp32")
    assert set(made.entries) == set(plain.entries)
    assert same_weights(plain, made)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_the_same_model_in_both_formats(tmp_path: Path, family: str) -> None:
    arch, name, settings = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SHAPE | settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    for parameter in model.parameters():  # transformers begins with biases of 0, which any order leaves as they are
        torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(tmp_path / "hf")
    raw = json.loads((tmp_path / "hf" / "config.json").read_text())
    tensors = converted(tensors_of(tmp_path / "hf"), arch, 4, 2)
    if "rope_parameters" in settings:
        tensors["rope_freqs.weight"] = llama3_factors(500000.0, 8)
    plain = Checkpoint.open(tmp_path / "hf")
    made = Checkpoint.open(write_gguf(tmp_path / "x.gguf", arch, tensors, metadata_of(arch, raw)))
    assert made.config == replace(plain.config, dtype="fp32")
    assert same_weights(plain, made)


DEEPSEEK = SHAPE | {
    "architectures": ["DeepseekForCausalLM"], "num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 2,
    "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "norm_topk_prob": False, "rms_norm_eps": 1e-6, "bos_token_id": 1, "eos_token_id": 2, "dtype": "float32",
}  # fmt: skip


def test_deepseek_moe_is_the_same_model_in_both_formats(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text(json.dumps(DEEPSEEK))
    rng = torch.Generator().manual_seed(0)
    wanted = names.expected(ModelConfig.from_hf(DEEPSEEK), ())
    save_file({name: torch.randn(shape, generator=rng) for name, shape in wanted}, tmp_path / "hf" / "model.safetensors")
    plain = Checkpoint.open(tmp_path / "hf")
    metadata = metadata_of("deepseek", DEEPSEEK) | {
        "deepseek.expert_count": 4, "deepseek.expert_used_count": 2, "deepseek.expert_shared_count": 2,
        "deepseek.leading_dense_block_count": 1,
    }  # fmt: skip
    made = Checkpoint.open(
        write_gguf(tmp_path / "x.gguf", "deepseek", converted(tensors_of(tmp_path / "hf"), "deepseek", 4, 4), metadata)
    )
    assert made.config == plain.config
    assert same_weights(plain, made)


def llama3_factors(theta: float, head_dim: int, factor: float = 8.0) -> Array:
    """What llama.cpp writes of Llama 3.1's RoPE: how many times slower each pair turns (arXiv 2407.21783, by Meta's code)."""
    inverse = 1 / theta ** (torch.arange(0, head_dim, 2) / head_dim)
    wave = 2 * math.pi / inverse
    smooth = (8192 / wave - 1) / 3
    between = 1 / ((1 - smooth) / factor + smooth)
    slow = torch.where(wave > 8192, torch.full_like(wave, factor), between)
    return torch.where(wave < 2048, torch.ones(()), slow).numpy().astype(np.float32)


def test_rope_factors_that_are_nobodys_are_refused(folder: Path, tmp_path: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    tensors = converted(tensors_of(folder), "llama", 4, 2) | {"rope_freqs.weight": np.linspace(1, 9, 4, dtype=np.float32)}
    path = write_gguf(tmp_path / "x.gguf", "llama", tensors, metadata_of("llama", raw))
    with pytest.raises(UnknownArchitecture, match="RoPE factors"):
        Checkpoint.open(path)


def test_rope_scaling_of_the_metadata_is_the_configs(folder: Path, tmp_path: Path) -> None:
    scaling: dict[str, Any] = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    rope = Checkpoint.open(mixtral(folder, tmp_path / "x.gguf", metadata=scaling)).config.rope
    assert (rope.kind, rope.factor) == ("linear", 2.0)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("F32", "fp32"), ("F16", "fp16"), ("BF16", "bf16"), ("Q8_0", "bf16"), ("Q4_0", "bf16")]
)
def test_a_file_of_any_kind_reads_as_the_gguf_package_reads_it(folder: Path, tmp_path: Path, kind: str, dtype: str) -> None:
    path = mixtral(folder, tmp_path / "x.gguf", kind)
    checkpoint = Checkpoint.open(path)
    assert checkpoint.config.dtype == dtype
    theirs = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    for e in range(4):
        got = tensor(checkpoint, f"model.layers.1.block_sparse_moe.experts.{e}.w2.weight")
        assert np.allclose(got, theirs["blk.1.ffn_down_exps.weight"][e], rtol=1e-6, atol=0)
    v = theirs["blk.0.attn_v.weight"]
    assert np.allclose(tensor(checkpoint, "model.layers.0.self_attn.v_proj.weight"), v, rtol=1e-6, atol=0)


def test_what_changes_attention_is_heard_or_refused(folder: Path, tmp_path: Path) -> None:
    window = {"llama.attention.sliding_window": 24}
    assert Checkpoint.open(mixtral(folder, tmp_path / "x.gguf", metadata=window)).config.windows == (24,) * 3
    with pytest.raises(UnknownArchitecture, match="only a part of each head"):
        Checkpoint.open(mixtral(folder, tmp_path / "x.gguf", metadata={"llama.rope.dimension_count": 4}))


def test_a_split_model_is_the_same_model_whichever_part_is_named(folder: Path, tmp_path: Path) -> None:
    whole = Checkpoint.open(mixtral(folder, tmp_path / "whole.gguf"))
    first = mixtral(folder, tmp_path / "x.gguf", parts=3)
    assert first.name == "x-00001-of-00003.gguf"
    for name in ("x-00001-of-00003.gguf", "x-00003-of-00003.gguf"):
        split = Checkpoint.open(tmp_path / name)
        assert len(split.headers) == 3
        assert split.config == whole.config
        assert same_weights(whole, split)
    assert len({Checkpoint.open(tmp_path / f"x-0000{i}-of-00003.gguf").model_id() for i in (1, 2, 3)}) == 1


def test_a_missing_or_misplaced_part_is_named(folder: Path, tmp_path: Path) -> None:
    first = mixtral(folder, tmp_path / "x.gguf", parts=3)
    third = tmp_path / "x-00003-of-00003.gguf"
    kept = third.read_bytes()
    third.unlink()
    with pytest.raises(MissingWeights, match="x-00003-of-00003"):
        Checkpoint.open(first)
    third.write_bytes((tmp_path / "x-00002-of-00003.gguf").read_bytes())
    with pytest.raises(CorruptWeights, match=r"part 2 of 3 .* number 3"):
        Checkpoint.open(first)
    third.write_bytes(kept)
    alone = first.rename(tmp_path / "alone.gguf")
    with pytest.raises(CorruptWeights, match="part 1 of 3 where 1 files"):
        Checkpoint.open(alone)


def test_a_folder_with_one_model_is_that_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    path = mixtral(folder, tmp_path / "home" / "x.gguf")
    assert describe(str(tmp_path / "home")).model_id == describe(str(path)).model_id == Checkpoint.open(path).model_id()
    mixtral(folder, tmp_path / "home" / "y.gguf")
    with pytest.raises(ModelError, match=r"several models: give the path of one of x\.gguf, y\.gguf"):
        Checkpoint.open(tmp_path / "home")


def test_the_checksum_follows_the_content(folder: Path, tmp_path: Path) -> None:
    one, two = (mixtral(folder, tmp_path / name) for name in ("one.gguf", "two.gguf"))
    found = Checkpoint.open(one).model_id()
    assert found == Checkpoint.open(two).model_id()
    raw = bytearray(two.read_bytes())
    raw[-40] ^= 1
    two.write_bytes(raw)
    assert found != Checkpoint.open(two).model_id()
    assert found != Checkpoint.open(mixtral(folder, tmp_path / "three.gguf", metadata={"general.name": "other"})).model_id()


def test_a_missing_tensor_and_a_shape_that_is_not_the_configs_are_named(folder: Path, tmp_path: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    tensors = converted(tensors_of(folder), "llama", 4, 2)
    one = {name: x for name, x in tensors.items() if name != "blk.1.attn_v.weight"}
    with pytest.raises(MissingWeights, match=r"model\.layers\.1\.self_attn\.v_proj\.weight"):
        Checkpoint.open(write_gguf(tmp_path / "one.gguf", "llama", one, metadata_of("llama", raw)))
    two = tensors | {"blk.1.ffn_up_exps.weight": tensors["blk.1.ffn_up_exps.weight"][:, :-1]}
    with pytest.raises(CorruptWeights, match=r"w3\.weight is \[95, 64\] where"):
        Checkpoint.open(write_gguf(tmp_path / "two.gguf", "llama", two, metadata_of("llama", raw)))


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "blk.1.attn_sinks.weight", "blk.0.ffn_gate_exps.bias", "cls.weight"])
def test_a_tensor_that_would_be_left_out_in_silence_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    raw = json.loads((folder / "config.json").read_text())
    tensors = converted(tensors_of(folder), "llama", 4, 2) | {name: np.ones(32, np.float32)}
    with pytest.raises(UnknownArchitecture, match=r"has the tensor .*, which swarm knows no use for"):
        Checkpoint.open(write_gguf(tmp_path / "x.gguf", "llama", tensors, metadata_of("llama", raw)))


def write_header(path: Path, arch: str, metadata: Mapping[str, Any]) -> Path:
    return write_gguf(path, arch, {"token_embd.weight": np.zeros((4, 4), np.float32)}, metadata)


@pytest.mark.parametrize(
    ("arch", "metadata", "why"),
    [
        ("mamba", {}, "architecture .mamba.; of GGUF files swarm knows deepseek, llama, qwen2"),
        ("llama", {}, r"lacks llama\.embedding_length"),
        ("llama", {"llama.embedding_length": "many"}, r"llama\.embedding_length in its metadata in no form"),
        ("llama", {"llama.embedding_length": [4, 4]}, r"llama\.embedding_length in its metadata in no form"),
        ("llama", {"llama.embedding_length": 4.5}, r"4\.5 for llama\.embedding_length"),
        ("llama", {"llama.embedding_length": math.nan}, r"nan for llama\.embedding_length"),
    ],
)  # fmt: skip
def test_metadata_that_make_no_model_are_refused_by_name(tmp_path: Path, arch: str, metadata: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        Checkpoint.open(write_header(tmp_path / "x.gguf", arch, metadata))


@pytest.mark.parametrize("kind", ["IQ4_NL", "TQ1_0"])
def test_a_kind_that_is_not_read_is_named_beside_those_that_are(tmp_path: Path, kind: str) -> None:
    weights, num_bytes = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((2, num_bytes), np.uint8), raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=rf"attn_q\.weight is {kind}, which swarm does not read; it reads F32, F16"):
        gguf_header_of(LocalFile(tmp_path / "x.gguf"))
    assert weights
