"""What is loaded is what was written, weighs what was planned, and costs no more memory than it keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swarm.bits import NUMBER_BYTES
from swarm.config import Sizes
from swarm.errors import CorruptWeights, MissingWeights
from swarm.model.dtypes import TORCH_DTYPES
from swarm.model.memory import ALIGNMENT, LARGE_PAGE, num_bytes
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.load import Loader

Write = Callable[..., Path]


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_part_is_what_safetensors_reads(write: Write, dtype: torch.dtype, shard: str) -> None:
    folder = write(dtype=dtype, shard=shard)
    want = {name: x for path in folder.glob("*.safetensors") for name, x in load_file(path).items()}
    loader = Loader(Checkpoint.open(folder), dtype)
    assert torch.equal(loader.embedding(), want["model.embed_tokens.weight"])
    assert torch.equal(loader.head().norm, want["model.norm.weight"])
    assert torch.equal(loader.head().output, want["lm_head.weight"])
    core, at = loader.core(1), "model.layers.1"
    assert torch.equal(core.wqkv, torch.cat([want[f"{at}.self_attn.{x}_proj.weight"] for x in "qkv"]))
    assert torch.equal(core.wo, want[f"{at}.self_attn.o_proj.weight"])
    assert torch.equal(core.router, want[f"{at}.block_sparse_moe.gate.weight"])
    assert torch.equal(core.attention_norm, want[f"{at}.input_layernorm.weight"])
    assert torch.equal(core.ffn_norm, want[f"{at}.post_attention_layernorm.weight"])
    expert, at = loader.expert(2, 3), "model.layers.2.block_sparse_moe.experts.3"
    assert torch.equal(expert.w13, torch.cat([want[f"{at}.w1.weight"], want[f"{at}.w3.weight"]]))
    assert torch.equal(expert.w2, want[f"{at}.w2.weight"])


@pytest.mark.parametrize("dtype", TORCH_DTYPES.values(), ids=TORCH_DTYPES)
def test_experts_fused_by_transformers_are_the_same_experts(write: Write, dtype: torch.dtype) -> None:
    plain, fused = (Loader(Checkpoint.open(write(name, fused=name == "fused")), dtype) for name in ("plain", "fused"))
    assert "model.layers.0.mlp.experts.gate_up_proj" in fused.checkpoint.entries
    for block in range(3):
        assert torch.equal(plain.core(block).router, fused.core(block).router)
        for e in range(4):
            one, two = plain.expert(block, e), fused.expert(block, e)
            assert torch.equal(one.w13, two.w13)
            assert torch.equal(one.w2, two.w2)


def test_a_tied_head_is_a_copy_of_the_embedding(write: Write) -> None:
    loader = Loader(Checkpoint.open(write(tie_word_embeddings=True)), torch.float32)
    assert "lm_head.weight" not in loader.checkpoint.entries
    assert torch.equal(loader.head().output, loader.embedding())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", NUMBER_BYTES)
def test_every_part_weighs_what_is_planned(write: Write, dtype: str, fused: bool) -> None:
    loader = Loader(Checkpoint.open(write(fused=fused)), TORCH_DTYPES[dtype])
    sizes = Sizes(loader.checkpoint.config, dtype)
    core, expert, head, embedding = loader.core(0), loader.expert(0, 0), loader.head(), loader.embedding()
    assert (core.num_bytes, expert.num_bytes) == (sizes.block_core, sizes.expert)
    assert (head.num_bytes, num_bytes(embedding)) == (sizes.head, sizes.embedding)
    kept = [embedding, head.norm, head.output, expert.w13, expert.w2, core.wqkv, core.wo, core.router]
    for tensor in kept:
        assert tensor.data_ptr() % ALIGNMENT == 0
        assert tensor.untyped_storage().nbytes() == num_bytes(tensor)  # no larger memory is kept alive behind it


def test_a_file_that_shrinks_or_goes_after_it_was_opened_is_refused(write: Write) -> None:
    folder = write()
    loader = Loader(Checkpoint.open(folder), torch.bfloat16)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CorruptWeights, match="ends inside the tensor"):
        [loader.expert(b, e) for b in range(3) for e in range(4)]
    path.unlink()
    with pytest.raises(MissingWeights, match=r"model\.safetensors cannot be read"):
        loader.embedding()


PEAK = """
import sys, torch
from pathlib import Path
from swarm.bits import Bits, Form
from swarm.weights.quantize import quantize
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.load import Loader
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
bits = Bits.of(sys.argv[3]) if sys.argv[3:] else None
loader = Loader(Checkpoint.open(Path(sys.argv[1])), torch.bfloat16 if bits else torch.float32, bits=bits)
torch.set_num_threads(1)
torch.ones(1 << 16).to(torch.bfloat16).float()
for form in ("int4", "int8/32"):  # what is imported and set up at the first use
    quantize(torch.ones(64, 256), Form.of(form))
before = peak()
kept = [loader.expert(0, e) for e in range(int(sys.argv[2]))]
print(peak() - before, sum(k.num_bytes for k in kept))
"""


def peak_over_kept(folder: Path, experts: int, dtype: str = "") -> tuple[int, int]:
    """How much a process of one thread grew while it loaded some experts, and what of it is kept, in bytes."""
    # malloc else raises its threshold as it goes, and keeps holes in a heap of its own: 12 MB or none, from run to run.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 17)}
    command = [sys.executable, "-c", PEAK, str(folder), str(experts), *filter(None, [dtype])]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    grown, kept = map(int, run.stdout.split())
    return grown, kept


@pytest.mark.parametrize("fused", [False, True])
def test_the_peak_is_what_is_kept_plus_one_tensor(write: Write, fused: bool) -> None:
    folder = write(fused=fused, hidden_size=512, intermediate_size=1536, num_hidden_layers=1, num_local_experts=8)
    grown, kept = peak_over_kept(folder, experts=8)
    one_tensor = 2 * 1536 * 512 * 2  # w13 in the file's bf16
    assert kept == 8 * 3 * 512 * 1536 * 4
    assert grown < kept + one_tensor + 2**20  # the whole file would be 38 MB


def test_in_few_bits_too_the_peak_is_what_is_kept_plus_one_tensor(write: Write) -> None:
    folder = write(hidden_size=2048, intermediate_size=5632, num_hidden_layers=1, num_local_experts=2)
    grown, kept = peak_over_kept(folder, 1, "int4")
    one_tensor = 5632 * 2048 * 4  # in fp32; it is held in the file's bf16, beside what tells how it is to be quantized
    assert kept == Sizes(Checkpoint.open(folder).config, "int4").expert
    assert grown < kept + one_tensor + 2**22 + LARGE_PAGE  # what a thread works in, and a page that is there before it is filled
