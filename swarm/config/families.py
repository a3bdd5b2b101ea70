"""The families of models that swarm knows: what their `config.json` says, and what it leaves to the architecture.

Each reader gives the parts that differ from Mixtral's; what they differ in is told in docs/models.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from swarm.config.model import ModelConfig
from swarm.config.parts import ACTIVATIONS, MOST_BLOCKS, Activation, AttentionParts, ExpertParts
from swarm.config.raw import Raw
from swarm.config.ropes import read_rope
from swarm.errors import ModelError, UnknownArchitecture

HF_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Args:
        parts: the fields of ModelConfig in which it differs from a dense Llama, from its config.
        theta: of RoPE, where the config says nothing; `norm_eps`, `positions` (the longest context) and `eos` (ids that end an
            answer) likewise, and `bos`, the id that begins a text (-1: it has none).
    """

    parts: Callable[[Raw], dict[str, Any]]
    theta: float = 1e4
    norm_eps: float = 1e-6
    positions: int = 32768
    bos: int = -1
    eos: tuple[int, ...] = ()


def read_config(values: dict[str, Any], where: str) -> ModelConfig:
    """A ModelConfig from a parsed `config.json`; see `ModelConfig.from_folder` for what it raises."""
    names = values.get("architectures")
    name = names[0] if isinstance(names, list) and names else "none"
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        raise UnknownArchitecture(f"{where} names the architecture {name}; swarm knows {', '.join(ARCHITECTURES)}")
    raw = Raw(_flat(values, where) if name == "DbrxForCausalLM" else values, where)
    activation = raw.text("hidden_act", "silu")
    if activation not in ACTIVATIONS:
        raise UnknownArchitecture(f"{where} asks for the activation {activation}; swarm knows {', '.join(ACTIVATIONS)}")
    heads, hidden = raw.whole("num_attention_heads"), raw.whole("hidden_size")
    positions = raw.whole("max_position_embeddings", family.positions)
    theta, rope = read_rope(raw, family.theta, positions)
    config = ModelConfig(
        architecture=name,
        hidden=hidden,
        ffn=raw.whole("intermediate_size"),
        num_blocks=raw.whole("num_hidden_layers", most=MOST_BLOCKS),
        num_heads=heads,
        num_kv_heads=raw.whole("num_key_value_heads", heads),
        head_dim=raw.whole("head_dim", hidden // heads),
        num_experts=1,
        top_k=1,
        vocab=raw.whole("vocab_size"),
        max_positions=positions,
        norm_eps=raw.number("rms_norm_eps", family.norm_eps),
        rope_theta=theta,
        tied_head=raw.flag("tie_word_embeddings"),
        dtype=HF_DTYPES.get(raw.text("dtype", raw.text("torch_dtype", "bfloat16")), "bf16"),
        bos_id=raw.whole("bos_token_id", family.bos, least=-1),
        eos_ids=raw.ids("eos_token_id", family.eos),
        rope=rope,
    )
    config = replace(config, **family.parts(raw))
    if config.contradicts_itself:
        raise ModelError(f"{where} contradicts itself (heads, KV heads, head_dim, layers or experts): fetch it again")
    return config


def _mixtral(raw: Raw) -> dict[str, Any]:
    experts, chosen = raw.whole("num_local_experts", 8), raw.whole("num_experts_per_tok", 2)
    return {"num_experts": experts, "top_k": chosen, "windows": _windows(raw)}


def _mistral(raw: Raw) -> dict[str, Any]:
    return {"windows": _windows(raw)}


def _llama(raw: Raw) -> dict[str, Any]:
    _no_mlp_bias(raw)
    biased = raw.flag("attention_bias")
    return {"attention": AttentionParts(qkv_bias=biased, out_bias=biased)}


def _qwen2(raw: Raw) -> dict[str, Any]:
    first = raw.whole("max_window_layers", 28, least=0)
    return {
        "attention": AttentionParts(qkv_bias=True),
        "windows": _windows(raw, lambda block: block >= first, "use_sliding_window"),
    }


def _qwen3(raw: Raw) -> dict[str, Any]:
    first, biased = raw.whole("max_window_layers", 28, least=0), raw.flag("attention_bias")
    attention = AttentionParts(qkv_bias=biased, out_bias=biased, qk_norm=True)
    return {"attention": attention, "windows": _windows(raw, lambda block: block >= first, "use_sliding_window")}


def _qwen2_moe(raw: Raw) -> dict[str, Any]:
    last = raw.whole("max_window_layers", 28, least=0)
    shared = raw.whole("shared_expert_intermediate_size", 5632, least=0)
    return {
        "attention": AttentionParts(qkv_bias=raw.flag("qkv_bias", True)),
        "windows": _windows(raw, lambda block: block % 2 == 0 and block < last, "use_sliding_window"),
        **_qwen_experts(raw, ExpertParts(shared_ffn=shared, shared_gate=bool(shared))),
    }


def _qwen3_moe(raw: Raw) -> dict[str, Any]:
    biased = raw.flag("attention_bias")
    return {
        "attention": AttentionParts(qkv_bias=biased, out_bias=biased, qk_norm=True),
        "windows": _windows(raw, switch="use_sliding_window"),
        **_qwen_experts(raw, ExpertParts()),
    }


def _qwen_experts(raw: Raw, parts: ExpertParts) -> dict[str, Any]:
    blocks, step, only = raw.whole("num_hidden_layers"), raw.whole("decoder_sparse_step", 1), raw.ids("mlp_only_layers")
    dense = tuple(b for b in range(blocks) if b in only or (b + 1) % step)
    count = raw.whole("num_experts" if raw.has("num_experts") else "num_local_experts")
    return _fine(raw, count, dense, replace(parts, norm=_norm(raw)))


def _deepseek(raw: Raw) -> dict[str, Any]:
    """The first DeepSeek-MoE (arXiv 2401.06066), with ordinary attention."""
    if raw.text("scoring_func", "softmax") != "softmax":
        raise UnknownArchitecture(f"{raw.where} asks for the router {raw.text('scoring_func', '')}; swarm knows softmax")
    biased, width = raw.flag("attention_bias"), raw.whole("moe_intermediate_size")
    first, step = raw.whole("first_k_dense_replace", 0, least=0), raw.whole("moe_layer_freq", 1)
    dense = tuple(b for b in range(raw.whole("num_hidden_layers")) if b < first or b % step)
    shared = raw.whole("n_shared_experts", 0, least=0) * width
    parts = _fine(raw, raw.whole("n_routed_experts"), dense, ExpertParts(norm=_norm(raw), shared_ffn=shared))
    return {"attention": AttentionParts(qkv_bias=biased, out_bias=biased), **parts}


def _gpt_oss(raw: Raw) -> dict[str, Any]:
    biased = raw.flag("attention_bias", True)
    return {
        "num_experts": raw.whole("num_local_experts"),
        "top_k": raw.whole("num_experts_per_tok", raw.whole("experts_per_token", 4)),
        "attention": AttentionParts(qkv_bias=biased, out_bias=biased, sinks=True),
        "windows": _windows(raw, lambda block: block % 2 == 0),
        "experts": ExpertParts(router_bias=True, bias=True),
        "activation": Activation(raw.number("swiglu_limit", 7.0), raw.number("swiglu_alpha", 1.702)),
    }


def _dbrx(raw: Raw) -> dict[str, Any]:
    ffn, attention = raw.part("ffn_config"), raw.part("attn_config")
    normed = "moe_normalize_expert_weights" not in ffn.values or ffn.has("moe_normalize_expert_weights")
    return {
        "num_experts": ffn.whole("moe_num_experts", 4),
        "top_k": ffn.whole("moe_top_k", 1),
        "norm": "layer",
        "attention": AttentionParts(clip=attention.number("clip_qkv", 0.0)),
        "experts": ExpertParts(norm=ffn.number("moe_normalize_expert_weights", 1.0) if normed else 0.0),
    }


def _flat(values: dict[str, Any], where: str) -> dict[str, Any]:
    """DBRX's config with the names that the others have."""
    raw = Raw(values, where)
    ffn, attention = raw.part("ffn_config"), raw.part("attn_config")
    renamed = {
        "hidden_size": values.get("d_model"),
        "num_attention_heads": values.get("n_heads"),
        "num_hidden_layers": values.get("n_layers"),
        "max_position_embeddings": values.get("max_seq_len"),
        "num_key_value_heads": attention.whole("kv_n_heads", 1),
        "intermediate_size": ffn.whole("ffn_hidden_size"),
        "rope_theta": attention.values.get("rope_theta", values.get("rope_theta")),
        "hidden_act": ffn.part("ffn_act_fn").text("name", "silu"),
    }
    return {**values, **renamed}


def _norm(raw: Raw) -> float:
    return float(raw.flag("norm_topk_prob"))


def _fine(raw: Raw, experts: int, dense: tuple[int, ...], parts: ExpertParts) -> dict[str, Any]:
    """Fine-grained experts of a width of their own, and a wider dense MLP in some Blocks."""
    return {
        "num_experts": experts,
        "top_k": raw.whole("num_experts_per_tok"),
        "ffn": raw.whole("moe_intermediate_size"),
        "experts": replace(parts, dense_blocks=dense, dense_ffn=raw.whole("intermediate_size") if dense else 0),
    }


def _windows(raw: Raw, has: Callable[[int], bool] = lambda _: True, switch: str = "") -> tuple[int, ...]:
    """The window of each Block; `layer_types` says which have one where it is there, else `has`. `switch`: what turns them on."""
    blocks, window = raw.whole("num_hidden_layers"), raw.whole("sliding_window", 0, least=0)
    if not window or (switch and not raw.flag(switch)):
        return ()
    kinds = raw.texts("layer_types")
    if kinds and (len(kinds) != blocks or set(kinds) - {"full_attention", "sliding_attention"}):
        raise UnknownArchitecture(f"{raw.where} has layer_types other than full_attention and sliding_attention, one a layer")
    return tuple(window * (kinds[b] == "sliding_attention" if kinds else has(b)) for b in range(blocks))


def _no_mlp_bias(raw: Raw) -> None:
    if raw.flag("mlp_bias"):
        raise UnknownArchitecture(f"{raw.where} asks for biases in its MLP (mlp_bias), which swarm knows of gpt-oss only")


FAMILIES: Mapping[str, Family] = {
    "MixtralForCausalLM": Family(_mixtral, theta=1e6, norm_eps=1e-5, bos=1, eos=(2,)),
    "MistralForCausalLM": Family(_mistral, bos=1, eos=(2,)),
    "LlamaForCausalLM": Family(_llama, positions=2048, bos=1, eos=(2,)),
    "Qwen2ForCausalLM": Family(_qwen2),
    "Qwen3ForCausalLM": Family(_qwen3),
    "Qwen2MoeForCausalLM": Family(_qwen2_moe),
    "Qwen3MoeForCausalLM": Family(_qwen3_moe),
    "DeepseekForCausalLM": Family(_deepseek, positions=2048),
    "GptOssForCausalLM": Family(_gpt_oss, theta=1.5e5, norm_eps=1e-5, positions=131072),
    "DbrxForCausalLM": Family(_dbrx, norm_eps=1e-5, positions=2048),
}
"""By what `architectures` of a config.json names."""
ARCHITECTURES = tuple(FAMILIES)
