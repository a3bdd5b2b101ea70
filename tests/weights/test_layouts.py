"""Layouts of DBRX's and gpt-oss's own: read as what they are, refused by the name of what is missing or odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DbrxConfig, DbrxForCausalLM, GptOssConfig, GptOssForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from swarm.bits import Bits, Form
from swarm.errors import CorruptWeights, MissingWeights
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.load import Loader
from swarm.weights.read import read_codes, read_into

SHAPE: dict[str, Any] = {"vocab_size": 32, "initializer_range": 0.3}


def gpt_oss(folder: Path, packed: bool) -> GptOssForCausalLM:
    """A tiny gpt-oss; `packed`: its experts in MXFP4, with what they stand for in the model that is given back."""
    torch.manual_seed(0)
    shape = SHAPE | {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    model = GptOssForCausalLM(GptOssConfig(**shape, num_hidden_layers=2, num_local_experts=3, num_experts_per_tok=2)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("_bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    if packed:
        tensors = load_file(folder / "model.safetensors")
        for name in [n for n in tensors if n.endswith("_proj") and "experts" in n]:
            experts, inputs, outputs = tensors.pop(name).shape
            blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
            scales = torch.randint(118, 129, (experts, outputs, inputs // 32), dtype=torch.uint8)
            tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            model.get_parameter(name).data = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        save_file(tensors, folder / "model.safetensors")
    return model


def in_our_order(model: GptOssForCausalLM, expert: int) -> tuple[Tensor, Tensor, Tensor]:
    """w13, w2 and b13 of an expert of Block 1."""
    experts = model.model.layers[1].mlp.experts
    both, bias = experts.gate_up_proj[expert].T, experts.gate_up_proj_bias[expert]
    return torch.cat((both[0::2], both[1::2])), experts.down_proj[expert].T, torch.cat((bias[0::2], bias[1::2]))


@pytest.mark.parametrize("packed", [False, True])
def test_gpt_oss_experts_are_read_with_gate_before_up_and_outputs_first(tmp_path: Path, packed: bool) -> None:
    model = gpt_oss(tmp_path, packed)
    loader = Loader(Checkpoint.open(tmp_path), torch.float32)
    for e in range(3):
        got, (w13, w2, b13) = loader.expert(1, e), in_our_order(model, e)
        for ours, theirs in (
            (got.w13, w13),
            (got.w2, w2),
            (got.b13, b13),
            (got.b2, model.model.layers[1].mlp.experts.down_proj_bias[e]),
        ):
            assert torch.equal(ours, theirs)


def test_mxfp4_is_read_whole_or_in_parts_and_code_for_code(tmp_path: Path) -> None:
    model = gpt_oss(tmp_path, packed=True)
    entries = Checkpoint.open(tmp_path).entries
    for name in ("gate_up_proj", "down_proj"):
        entry = entries[f"model.layers.1.mlp.experts.{name}"]
        whole, half = torch.empty(entry.shape), torch.empty(entry.shape, dtype=torch.bfloat16)
        read_into(whole, entry)
        read_into(half, entry)
        assert torch.equal(half.float(), whole), "bf16 has every number of MXFP4"
        for e in range(3):
            codes = read_codes(entry, e)
            assert codes is not None and codes.form == entry.form == Form("int8", 32)
            assert torch.equal(codes.dense(), whole[e])
            assert torch.equal(whole[e], in_our_order(model, e)[name == "down_proj"])


def test_mxfp4_experts_kept_in_int8_lose_nothing(tmp_path: Path) -> None:
    gpt_oss(tmp_path, packed=True)
    checkpoint = Checkpoint.open(tmp_path)
    kept = Loader(checkpoint, torch.float32, bits=Bits.of("fp32+down=int8/32")).expert(1, 2)
    exact = Loader(checkpoint, torch.float32).expert(1, 2)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kept.forward(x), exact.forward(x), atol=1e-4, rtol=1e-5)


def dbrx(folder: Path) -> DbrxForCausalLM:
    torch.manual_seed(0)
    attention = {"kv_n_heads": 1, "clip_qkv": 1.0, "rope_theta": 1e4}
    ffn = {"ffn_hidden_size": 24, "moe_num_experts": 3, "moe_top_k": 2}
    config = DbrxConfig(**SHAPE, d_model=16, n_heads=2, n_layers=2, max_seq_len=64, attn_config=attention, ffn_config=ffn)
    model = DbrxForCausalLM(config)
    model.save_pretrained(folder)
    return model


def test_dbrx_is_taken_apart_where_its_bytes_lie(tmp_path: Path) -> None:
    mlp = dbrx(tmp_path).transformer.blocks[1].ffn.experts.mlp
    loader = Loader(Checkpoint.open(tmp_path), torch.float32)
    for e in range(3):
        got, rows = loader.expert(1, e), slice(e * 24, e * 24 + 24)
        assert torch.equal(got.w13, torch.cat((mlp.w1[rows], mlp.v1[rows])))
        assert torch.equal(got.w2, mlp.w2[rows].T)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (dbrx, "transformer.blocks.1.ffn.experts.mlp.v1"),
        (dbrx, "transformer.blocks.0.norm_attn_norm.attn.Wqkv.weight"),
        (lambda folder: gpt_oss(folder, True), "model.layers.0.mlp.experts.down_proj_scales"),
        (lambda folder: gpt_oss(folder, False), "model.layers.0.mlp.experts.gate_up_proj"),
        (lambda folder: gpt_oss(folder, False), "model.layers.0.self_attn.sinks"),
    ],
)
def test_what_such_a_layout_lacks_or_has_in_another_shape_is_refused_by_its_own_name(tmp_path: Path, make: Any, name: str) -> None:
    make(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    found = tensors.pop(name)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(MissingWeights, match=name):
        Checkpoint.open(tmp_path)
    for odd in (found[..., :-1].contiguous(), found.to(torch.int32)):
        save_file(tensors | {name: odd}, tmp_path / "model.safetensors")
        with pytest.raises(CorruptWeights, match=name):
            Checkpoint.open(tmp_path)


def test_a_config_of_another_shape_than_the_files_is_refused(tmp_path: Path) -> None:
    dbrx(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["ffn_config"]["moe_num_experts"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptWeights, match="config"):
        Checkpoint.open(tmp_path)
