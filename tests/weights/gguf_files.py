"""GGUF files of small models, written with the gguf package from what transformers wrote, as llama.cpp's converter does it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor

from swarm.weights.source import resolve

Array = npt.NDArray[Any]

OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
RENAMED = (
    ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"), ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"), ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"), ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"), ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"), ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"), ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"), ("mlp.gate", "ffn_gate_inp"),
)  # fmt: skip
EXPERT = re.compile(r"model\.layers\.(\d+)\.(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+)\.weight")
LETTERS = {"w1": "gate", "w2": "down", "w3": "up", "gate_proj": "gate", "down_proj": "down", "up_proj": "up"}


def tensors_of(folder: Path) -> dict[str, Array]:
    """A safetensors folder's, in fp32."""
    return {name: x.float().numpy() for path in sorted(folder.glob("*.safetensors")) for name, x in load_file(path).items()}


def converted(tensors: Mapping[str, Array], arch: str, heads: int, kv_heads: int, merged: bool = True) -> dict[str, Array]:
    """The same under llama.cpp's names, q and k of `llama` and `deepseek` with moved rows, each Block's experts merged or not."""
    found: dict[str, Array] = {}
    experts: dict[str, dict[int, Array]] = {}
    for name, x in tensors.items():
        if arch in ("llama", "deepseek") and re.search(r"self_attn\.[qk]_proj\.", name):
            n = heads if ".q_proj" in name else kv_heads
            x = x.reshape(n, 2, x.shape[0] // n // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
        if match := EXPERT.fullmatch(name):
            experts.setdefault(f"blk.{match[1]}.ffn_{LETTERS[match[3]]}", {})[int(match[2])] = x
        else:
            found[_renamed(name)] = x.squeeze() if "shared_expert_gate" in name else x
    for name, parts in experts.items():
        if merged:
            found[f"{name}_exps.weight"] = np.stack([parts[e] for e in sorted(parts)])
        else:
            found |= {f"{name}.{e}.weight": x for e, x in parts.items()}
    return found


def nano_gguf(path: Path, kind: str) -> Path:
    """The embedded model, all matrices but the routers in `kind`."""
    folder = resolve("nano")
    config = json.loads((folder / "config.json").read_text())
    processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    size = processor.vocab_size()
    kinds = [4 if i in (3, 4) else 3 if i < 3 else 6 if processor.is_byte(i) else 1 for i in range(size)]
    tokenizer = {
        "model": "llama", "tokens": [processor.id_to_piece(i) for i in range(size)], "token_type": kinds,
        "scores": [processor.get_score(i) for i in range(size)],
    }  # fmt: skip
    metadata = metadata_of("llama", config) | {f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()}
    tensors = converted(tensors_of(folder), "llama", config["num_attention_heads"], config["num_key_value_heads"])
    return write_gguf(path, "llama", tensors, metadata, kind)


def write_gguf(
    path: Path, arch: str, tensors: Mapping[str, Array], metadata: Mapping[str, Any], kind: str = "F32", parts: int = 1
) -> Path:
    """A file, or several of a split model; matrices in `kind` where their rows are whole blocks of it. Returns the first."""
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=-(-len(tensors) // parts) if parts > 1 else 0)
    for key, value in metadata.items():
        add(writer, key, value)
    for name, x in tensors.items():
        stored = _stored(name, x, kind)
        writer.add_tensor(name, x if stored == "F32" else quantized(x, stored), raw_dtype=GGMLQuantizationType[stored])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if parts == 1 else sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf"))[0]


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """One key of the metadata, of the type that llama.cpp gives such a value."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def quantized(x: Array, kind: str) -> Array:
    return np.asarray(gguf.quants.quantize(x, GGMLQuantizationType[kind]))


def metadata_of(arch: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp's converter makes of a config.json, as far as the tests' models have it."""
    rope = config.get("rope_parameters") or {}
    found = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(rope.get("rope_theta", 10000.0)),
    }
    if config.get("head_dim"):
        found |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    experts = config.get("num_local_experts") or config.get("num_experts")
    if experts:
        found |= {"expert_count": experts, "expert_used_count": config["num_experts_per_tok"]}
    if config.get("moe_intermediate_size"):
        found |= {"expert_feed_forward_length": config["moe_intermediate_size"]}
    ids = {
        f"tokenizer.ggml.{name}_token_id": config[f"{name}_token_id"]
        for name in ("bos", "eos")
        if isinstance(config.get(f"{name}_token_id"), int)
    }
    return {f"{arch}.{key}": value for key, value in found.items()} | ids


def _renamed(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    name = name.replace("model.layers.", "blk.")
    return next(name.replace(f".{old}.", f".{new}.") for old, new in RENAMED if f".{old}." in name)


def _stored(name: str, x: Array, kind: str) -> str:
    """llama.cpp leaves vectors and routers in fp32, and matrices with odd rows in fp16."""
    if x.ndim < 2 or "ffn_gate_inp" in name:
        return "F32"
    return kind if x.shape[-1] % gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0] == 0 else "F16"
