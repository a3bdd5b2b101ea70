"""What a GGUF file's metadata says of the model, as Hugging Face's `config.json` would say it. Standard library only.

So that every family of `ModelConfig` can be read from either. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

from swarm.errors import ModelError, UnknownArchitecture
from swarm.weights.gguf.entry import GgufEntry
from swarm.weights.gguf.metadata import Metadata

HF_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DENSE = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
EXPERTS = {
    "llama": "MixtralForCausalLM", "qwen2moe": "Qwen2MoeForCausalLM", "qwen3moe": "Qwen3MoeForCausalLM",
    "deepseek": "DeepseekForCausalLM",
}  # fmt: skip
"""Hugging Face's names of the architectures, by llama.cpp's."""
SOFTMAX = 1
GATING = {SOFTMAX: "softmax", 2: "sigmoid"}
BOS = "tokenizer.ggml.bos_token_id"
ROPE_FACTORS = "rope_freqs.weight"
MAX_FACTORS = 4096
LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_CONTEXT = 1.0, 4.0, 8192
"""What Llama 3.1 to 3.3 have in common; their factor is in the tensor, which is the only thing that the files keep of it all."""


def hf_config(meta: Metadata, tensors: Mapping[str, GgufEntry]) -> dict[str, Any]:
    """`config.json` as a dict.

    Args:
        meta: the (first) file's.
        tensors: of all files, by llama.cpp's names.

    Raises:
        UnknownArchitecture: llama.cpp's name for it is none that swarm knows.
        ModelError: the metadata lack or contradict something.
    """
    arch = meta.text("general.architecture")
    with_experts = meta.integer(f"{arch}.expert_count", 0) > 0
    window = meta.integer(f"{arch}.attention.sliding_window", 0) or None
    if "token_embd.weight" not in tensors:
        raise ModelError(f"{meta.path} lacks the tensor token_embd.weight: fetch the model again, whole")
    raw: dict[str, Any] = {
        "architectures": [_architecture(meta, arch, EXPERTS if with_experts else DENSE, window)],
        "hidden_act": "silu",
        "hidden_size": meta.integer(f"{arch}.embedding_length"),
        "intermediate_size": meta.integer(f"{arch}.feed_forward_length"),
        "num_hidden_layers": meta.integer(f"{arch}.block_count"),
        "num_attention_heads": meta.integer(f"{arch}.attention.head_count"),
        "max_position_embeddings": meta.integer(f"{arch}.context_length"),
        "rms_norm_eps": _shortest(meta.number(f"{arch}.attention.layer_norm_rms_epsilon")),
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        "dtype": _dtype(tensors),
        "bos_token_id": meta.integer(BOS) if BOS in meta else None,
        "eos_token_id": end_ids(meta) or None,
        "rope_parameters": _rope(meta, arch, tensors.get(ROPE_FACTORS)),
        "sliding_window": window,
    }
    raw["num_key_value_heads"] = meta.integer(f"{arch}.attention.head_count_kv", raw["num_attention_heads"])
    raw["head_dim"] = meta.integer(f"{arch}.attention.key_length", raw["hidden_size"] // max(1, raw["num_attention_heads"]))
    turned = meta.integer(f"{arch}.rope.dimension_count", raw["head_dim"])
    raw["partial_rotary_factor"] = turned / max(1, raw["head_dim"])
    return raw | _biases(tensors) | (_experts(meta, arch, tensors) if with_experts else {})


def _architecture(meta: Metadata, arch: str, known: Mapping[str, str], window: int | None) -> str:
    """Hugging Face's name. Raises UnknownArchitecture."""
    if arch not in known:
        raise UnknownArchitecture(
            f"{meta.path} names the architecture {arch!r:.60}; of GGUF files swarm knows {', '.join(sorted({*DENSE, *EXPERTS}))}"
        )
    # Llama's Block with a window is Mistral's.
    return "MistralForCausalLM" if window and known[arch] == "LlamaForCausalLM" else known[arch]


def end_ids(meta: Metadata) -> list[int]:
    """The tokens that end an answer, the text's end first; a chat's turn may have one of its own."""
    keys = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    return list(dict.fromkeys(meta.integer(key) for key in keys if key in meta))


def _biases(tensors: Mapping[str, GgufEntry]) -> dict[str, Any]:
    return {"attention_bias": "blk.0.attn_q.bias" in tensors and "blk.0.attn_output.bias" in tensors}


def _experts(meta: Metadata, arch: str, tensors: Mapping[str, GgufEntry]) -> dict[str, Any]:
    """What each family's `config.json` has of its experts."""
    count, used = meta.integer(f"{arch}.expert_count"), meta.integer(f"{arch}.expert_used_count")
    if arch == "llama":
        return {"num_local_experts": count, "num_experts_per_tok": used}
    width = meta.integer(f"{arch}.expert_feed_forward_length", 0) or _expert_width(tensors)
    raw: dict[str, Any] = {"num_experts_per_tok": used, "moe_intermediate_size": width}
    if arch == "deepseek":
        return raw | {
            "n_routed_experts": count,
            "n_shared_experts": meta.integer(f"{arch}.expert_shared_count"),
            "first_k_dense_replace": meta.integer(f"{arch}.leading_dense_block_count", 0),
            "moe_layer_freq": 1,
            "norm_topk_prob": meta.flag(f"{arch}.expert_weights_norm", False),
            "scoring_func": GATING.get(meta.integer(f"{arch}.expert_gating_func", SOFTMAX), "unknown"),
        }
    norm = meta.flag(f"{arch}.expert_weights_norm", arch == "qwen3moe")
    raw |= {"num_experts": count, "norm_topk_prob": norm, "decoder_sparse_step": 1, "mlp_only_layers": []}
    if arch == "qwen2moe":
        shared = tensors.get("blk.0.ffn_gate_shexp.weight")
        raw["shared_expert_intermediate_size"] = shared.shape[0] if shared else 0
    return raw


def _expert_width(tensors: Mapping[str, GgufEntry]) -> int:
    merged = next((t for name, t in tensors.items() if name.endswith(".ffn_gate_exps.weight") and len(t.shape) == 3), None)
    return merged.shape[1] if merged else 0


def _rope(meta: Metadata, arch: str, factors: GgufEntry | None) -> dict[str, Any]:
    """`rope_parameters`. Raises ModelError, UnknownArchitecture: frequency factors that are not Llama 3's."""
    theta = _shortest(meta.number(f"{arch}.rope.freq_base", 10000.0))
    if theta <= 1:
        raise ModelError(f"{meta.path} has {theta} for {arch}.rope.freq_base: fetch it again")
    kind = meta.text(f"{arch}.rope.scaling.type", "none")
    if factors is not None:
        return _llama3(factors, theta)
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    return {
        "rope_type": kind,
        "rope_theta": theta,
        "factor": _shortest(meta.number(f"{arch}.rope.scaling.factor")),
        "original_max_position_embeddings": meta.integer(
            f"{arch}.rope.scaling.original_context_length", meta.integer(f"{arch}.context_length")
        ),
    }


def _llama3(factors: GgufEntry, theta: float) -> dict[str, Any]:
    raw = factors.file.read(factors.offset, min(factors.num_bytes, MAX_FACTORS * 4))
    found = struct.unpack(f"<{len(raw) // 4}f", raw[: len(raw) // 4 * 4])
    factor = round(max(found, default=0), 4) if all(map(math.isfinite, found)) else 0
    if factors.kind.name != "F32" or factor < 1:
        raise _strange(factors)
    low, high = LLAMA3_CONTEXT / LLAMA3_LOW, LLAMA3_CONTEXT / LLAMA3_HIGH
    for i, one in enumerate(found):
        wave = 2 * math.pi * theta ** (i / len(found))
        smooth = min(1.0, max(0.0, (LLAMA3_CONTEXT / wave - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW)))
        want = factor if wave > low else 1.0 if wave < high else 1 / ((1 - smooth) / factor + smooth)
        if abs(one - want) > 1e-3 * want:
            raise _strange(factors)
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": LLAMA3_LOW,
        "high_freq_factor": LLAMA3_HIGH,
        "original_max_position_embeddings": LLAMA3_CONTEXT,
    }


def _strange(factors: GgufEntry) -> UnknownArchitecture:
    return UnknownArchitecture(
        f"{factors.path} has RoPE factors that are not Llama 3's, and swarm knows no others: give another file"
    )


def _dtype(tensors: Mapping[str, GgufEntry]) -> str:
    """What the matrices that are floats have; bf16 where all are in few bits, as nearly all such models were trained in."""
    kinds = {t.kind.name for name, t in tensors.items() if len(t.shape) > 1 and "ffn_gate_inp" not in name}
    return next((HF_DTYPES[name] for name in ("BF16", "F16", "F32") if name in kinds and kinds <= set(HF_DTYPES)), "bfloat16")


def _shortest(x: float) -> float:
    """The number that a person wrote, before it was rounded to fp32: the shortest that rounds to the same."""
    if abs(x) > 1e38:  # which fp32 may not have
        return x
    same = struct.pack("<f", x)
    return next((y for digits in range(1, 10) if struct.pack("<f", y := float(f"{x:.{digits}g}")) == same), x)
