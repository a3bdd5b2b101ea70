"""How the loader keeps each role's matrices: in the form that the Plan says, or in the codes that the file has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf_files import converted, metadata_of, tensors_of, write_gguf
from mappings import flags, needs_large_pages
from safetensors.torch import load_file, save_file
from torch import Tensor

from swarm.bits import Bits
from swarm.config import Sizes
from swarm.errors import CorruptWeights
from swarm.model.product import Weight
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.int8_groups import Int8Groups
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.describe import describe
from swarm.weights.load import Loader
from swarm.weights.losses import Loss, said

Write = Callable[..., Path]
WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "vocab_size": 96}


def loader_of(where: Path, dtype: str) -> Loader:
    return Loader(Checkpoint.open(where), torch.bfloat16, bits=Bits.of(dtype))


def dense(w: Weight) -> Tensor:
    return w if isinstance(w, Tensor) else w.dense()


def test_every_role_is_kept_in_its_own_form_and_weighs_what_is_planned(write: Write) -> None:
    dtype = "int4/32+attention=int8+down=int8/32+head=bf16"
    loader = loader_of(write(**WIDE), dtype)
    core, expert, head = loader.core(0), loader.expert(0, 0), loader.head()
    assert isinstance(expert.w13, Int4Matrix) and expert.w13.group == 32
    assert isinstance(expert.w2, Int8Groups) and expert.w2.group == 32
    assert isinstance(core.wqkv, Int8Matrix) and isinstance(core.wo, Int8Matrix)
    assert isinstance(head.output, Tensor) and isinstance(core.router, Tensor)
    sizes = Sizes(loader.checkpoint.config, dtype)
    assert (core.num_bytes, expert.num_bytes, head.num_bytes) == (sizes.block_core, sizes.expert, sizes.head)


@needs_large_pages
@pytest.mark.parametrize("dtype", ["bf16", "int4"])
def test_what_is_large_is_read_into_large_pages(write: Write, dtype: str) -> None:
    expert = loader_of(write(hidden_size=1024, intermediate_size=4096), dtype).expert(0, 0)
    for w in (expert.w13, expert.w2):
        assert "hg" in flags((w if isinstance(w, Tensor) else w.packed).data_ptr())


@pytest.mark.parametrize("dtype", ["int4", "int8"])
@pytest.mark.parametrize("odd", [float("nan"), float("-inf")])
def test_a_matrix_with_what_is_no_finite_number_is_not_quantized_and_named(write: Write, dtype: str, odd: float) -> None:
    folder, name = write(), "model.layers.1.self_attn.v_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors[name][3, 5] = odd
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CorruptWeights, match=f"model.safetensors: {name} has weights that are infinite or no numbers"):
        Loader(Checkpoint.open(folder), torch.bfloat16, bits=Bits.of(dtype)).core(1)


def test_what_quantizing_did_is_kept_by_tensor_and_said_by_role(write: Write) -> None:
    folder = write(dtype=torch.float32, **WIDE)
    loader, plain = loader_of(folder, "int4+head=bf16"), Loader(Checkpoint.open(folder), torch.float32)
    w, kept = plain.expert(1, 2).w2, loader.expert(1, 2).w2
    loader.core(1)
    loader.head()
    assert {loss.role for loss in loader.losses} == {"experts", "down", "attention"}
    loss = next(loss for loss in loader.losses if loss.name == "model.layers.1.block_sparse_moe.experts.2.w2.weight")
    assert isinstance(w, Tensor)
    found = (dense(kept).float() - w).square().sum() / w.square().sum()
    assert loss.error == pytest.approx(float(found), rel=0.05)  # scales are rounded after
    assert not plain.losses and not any(loss.again for loss in loader.losses)
    assert said([Loss("a", "head", 0.5), Loss("b", "head", 0.25, again=True)]) == (
        "head: squared error 3.75e-01 of the weights' squares, at most 5.00e-01 (a), 1 of 2 quantized a second time"
    )


@pytest.mark.parametrize(("kind", "own"), [("Q4_0", "int4/32+head=int4/32"), ("Q8_0", "int8/32")])
def test_codes_of_a_file_are_kept_where_they_take_no_more_than_the_plan_gives(
    write: Write, tmp_path: Path, kind: str, own: str
) -> None:
    folder = write(dtype=torch.float32, **WIDE)
    config = json.loads((folder / "config.json").read_text())
    tensors = converted(tensors_of(folder), "llama", config["num_attention_heads"], config["num_key_value_heads"])
    path = write_gguf(tmp_path / "x.gguf", "llama", tensors, metadata_of("llama", config), kind)
    assert describe(str(path)).dtype == own
    loader = loader_of(path, own)
    truth = Loader(Checkpoint.open(path), torch.float32)
    for made, right in ((loader.expert(0, 1).w13, truth.expert(0, 1).w13), (loader.core(0).wqkv, truth.core(0).wqkv)):
        assert not isinstance(made, Tensor)
        assert (dense(made).float() - dense(right)).abs().max() <= 2**-6 * dense(right).abs().max()
    assert not loader.losses
    exact = Loader(Checkpoint.open(path), torch.float32, bits=Bits.of(own)).expert(0, 1).w2
    assert (dense(exact) - dense(truth.expert(0, 1).w2)).abs().max() < 1e-6 * dense(exact).abs().max()
    narrower = loader_of(path, "int4/128")
    narrower.expert(0, 1)
    assert [loss.again for loss in narrower.losses] == [True] * 3
