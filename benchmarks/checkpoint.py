"""Write a Mixtral-shaped checkpoint of random weights in Hugging Face layout, one file a Block.

    python -m benchmarks.checkpoint FOLDER [--hidden 1024 --ffn 3584 --blocks 16 --heads 16 --kv-heads 4 --vocab 32000]

The default is the shape that the peers were measured with: 1.52B parameters, 2.9 GiB in bf16.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

INDEX = "model.safetensors.index.json"


def config_json(hidden: int, ffn: int, blocks: int, heads: int, kv_heads: int, vocab: int, head_dim: int) -> dict[str, object]:
    """A `config.json` as transformers writes it."""
    return {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "dtype": "bfloat16", "hidden_act": "silu",
        "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": blocks, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "num_local_experts": 8, "num_experts_per_tok": 2,
        "vocab_size": vocab, "max_position_embeddings": 32768, "rope_theta": 1e6, "rms_norm_eps": 1e-5,
        "sliding_window": None, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def write(folder: Path, hidden: int, ffn: int, blocks: int, heads: int, kv_heads: int, vocab: int, head_dim: int = 0) -> None:
    """Write config, index and one file a Block; the ends of the model are a file of their own. `head_dim` 0: hidden / heads."""
    head_dim = head_dim or hidden // heads
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    def matrix(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0.0, 0.02)

    index: dict[str, str] = {}

    def save(name: str, tensors: dict[str, Tensor]) -> None:
        save_file(tensors, folder / name)
        index.update(dict.fromkeys(tensors, name))

    norm = torch.ones(hidden, dtype=torch.bfloat16)
    ends = {"model.embed_tokens.weight": matrix(vocab, hidden), "lm_head.weight": matrix(vocab, hidden), "model.norm.weight": norm}
    save("ends.safetensors", ends)
    kv = kv_heads * head_dim
    for block in range(blocks):
        at = f"model.layers.{block}."
        tensors = {f"{at}{n}_layernorm.weight": norm.clone() for n in ("input", "post_attention")}
        tensors[f"{at}block_sparse_moe.gate.weight"] = matrix(8, hidden)
        for letter, rows in (("q", heads * head_dim), ("k", kv), ("v", kv)):
            tensors[f"{at}self_attn.{letter}_proj.weight"] = matrix(rows, hidden)
        tensors[f"{at}self_attn.o_proj.weight"] = matrix(hidden, heads * head_dim)
        for expert in range(8):
            name = f"{at}block_sparse_moe.experts.{expert}."
            tensors |= {f"{name}w1.weight": matrix(ffn, hidden), f"{name}w3.weight": matrix(ffn, hidden)}
            tensors[f"{name}w2.weight"] = matrix(hidden, ffn)
        save(f"block-{block:02}.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config_json(hidden, ffn, blocks, heads, kv_heads, vocab, head_dim)))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def ensure(folder: Path, **shape: int) -> Path:
    """The folder, written unless it is there whole."""
    wanted = {"hidden": 1024, "ffn": 3584, "blocks": 16, "heads": 16, "kv_heads": 4, "vocab": 32000} | shape
    if not (folder / INDEX).is_file():
        write(folder, **wanted)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("hidden", 1024), ("ffn", 3584), ("blocks", 16), ("heads", 16), ("kv-heads", 4), ("vocab", 32000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = vars(parser.parse_args())
    ensure(given.pop("folder"), **given)
