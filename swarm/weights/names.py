"""What checkpoints call their tensors, family by family, in the layouts that Hugging Face writes. Standard library only.

Experts are one tensor each (`experts.N.w1` of Mixtral, `experts.N.gate_proj` of the others) or one tensor for all:
`mlp.experts.gate_up_proj` [E, 2F, H] is what transformers 5 keeps in memory and writes when it is told not to convert back.
What DBRX and gpt-oss lay out otherwise is under these names too (see `swarm.weights.layouts`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from swarm.config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"
OUTPUT = "lm_head.weight"
MIXTRAL = "MixtralForCausalLM"
GPT_OSS = "GptOssForCausalLM"
SHARED = {"Qwen2MoeForCausalLM": "shared_expert", "DeepseekForCausalLM": "shared_experts"}
"""The shared expert of a Block, by architecture."""

Shape = tuple[int, ...]
Named = dict[str, tuple[str, Shape]]
"""Name and shape of each tensor of a part, by its letter."""


def core(config: ModelConfig, block: int, names: Container[str]) -> Named:
    """A Block without its experts.

    Letters: norm1, q, k, v, o, norm2; and as the config has them: bq, bk, bv, bo (biases), qn, kn (norms of queries and keys),
    sinks, router, brouter (its bias), s1, s2, s3 (shared expert, or the dense MLP instead of experts), sgate (the former's gate).
    """
    c, at = config, f"model.layers.{block}"
    return {
        "norm1": (f"{at}.input_layernorm.weight", (c.hidden,)),
        **_attention(c, f"{at}.self_attn"),
        "norm2": (f"{at}.post_attention_layernorm.weight", (c.hidden,)),
        **_beside_experts(c, block, names),
    }


def _attention(c: ModelConfig, at: str) -> Named:
    parts = c.attention
    rows = {"q": c.num_heads * c.head_dim, "k": c.num_kv_heads * c.head_dim, "v": c.num_kv_heads * c.head_dim}
    found: Named = {letter: (f"{at}.{letter}_proj.weight", (n, c.hidden)) for letter, n in rows.items()}
    found["o"] = (f"{at}.o_proj.weight", (c.hidden, rows["q"]))
    if parts.qkv_bias:
        found |= {f"b{letter}": (f"{at}.{letter}_proj.bias", (n,)) for letter, n in rows.items()}
    if parts.out_bias:
        found["bo"] = (f"{at}.o_proj.bias", (c.hidden,))
    if parts.qk_norm:
        found |= {f"{letter}n": (f"{at}.{letter}_norm.weight", (c.head_dim,)) for letter in "qk"}
    if parts.sinks:
        found["sinks"] = (f"{at}.sinks", (c.num_heads,))
    return found


def _beside_experts(c: ModelConfig, block: int, names: Container[str]) -> Named:
    at, parts = f"model.layers.{block}.mlp", c.experts
    if not c.experts_in(block):
        return _mlp(at, parts.dense_ffn, c.hidden, ("s1", "s2", "s3"))
    found: Named = {}
    if c.routed:
        found["router"] = (f"{_router(c, block, names)}.weight", (c.num_experts, c.hidden))
    if parts.router_bias:
        found["brouter"] = (f"{_router(c, block, names)}.bias", (c.num_experts,))
    if parts.shared_ffn:
        shared = SHARED.get(c.architecture, "shared_expert")
        found |= _mlp(f"{at}.{shared}", parts.shared_ffn, c.hidden, ("s1", "s2", "s3"))
    if parts.shared_gate:
        found["sgate"] = (f"{at}.shared_expert_gate.weight", (1, c.hidden))
    return found


def _router(c: ModelConfig, block: int, names: Container[str]) -> str:
    mixtral = c.architecture == MIXTRAL and not is_fused(block, names)
    own = "router" if c.architecture == GPT_OSS else "gate"
    return f"model.layers.{block}.{'block_sparse_moe' if mixtral else 'mlp'}.{own}"


def _mlp(at: str, ffn: int, hidden: int, letters: tuple[str, str, str] = ("w1", "w2", "w3")) -> Named:
    one, two, three = letters
    return {
        one: (f"{at}.gate_proj.weight", (ffn, hidden)),
        two: (f"{at}.down_proj.weight", (hidden, ffn)),
        three: (f"{at}.up_proj.weight", (ffn, hidden)),
    }


def is_fused(block: int, names: Container[str]) -> bool:
    """Whether a Block's experts are one tensor for all."""
    return f"model.layers.{block}.mlp.experts.gate_up_proj" in names


def experts(config: ModelConfig, block: int) -> Named:
    """The fused layout: w13 [E, 2F, H] and w2 [E, H, F]; b13 [E, 2F] and b2 [E, H] where experts have biases."""
    c, at = config, f"model.layers.{block}.mlp.experts"
    found: Named = {
        "w13": (f"{at}.gate_up_proj", (c.num_experts, 2 * c.ffn, c.hidden)),
        "w2": (f"{at}.down_proj", (c.num_experts, c.hidden, c.ffn)),
    }
    if c.experts.bias:
        found["b13"] = (f"{at}.gate_up_proj_bias", (c.num_experts, 2 * c.ffn))
        found["b2"] = (f"{at}.down_proj_bias", (c.num_experts, c.hidden))
    return found


def expert(config: ModelConfig, block: int, index: int) -> Named:
    """The layout of one tensor an expert: w1 and w3 [F, H], w2 [H, F]. Of a dense model, its one MLP."""
    c, at = config, f"model.layers.{block}"
    if c.architecture == MIXTRAL:
        shapes = {"w1": (c.ffn, c.hidden), "w2": (c.hidden, c.ffn), "w3": (c.ffn, c.hidden)}
        return {letter: (f"{at}.block_sparse_moe.experts.{index}.{letter}.weight", shape) for letter, shape in shapes.items()}
    return _mlp(f"{at}.mlp.experts.{index}" if c.routed else f"{at}.mlp", c.ffn, c.hidden)


def expected(config: ModelConfig, names: Container[str]) -> Iterator[tuple[str, Shape]]:
    """Every tensor that the model needs, with its shape, given the names that the checkpoint has."""
    yield EMBEDDING, (config.vocab, config.hidden)
    for block in range(config.num_blocks):
        yield from core(config, block, names).values()
        if config.experts_in(block) and (is_fused(block, names) or config.experts.bias):
            yield from experts(config, block).values()
        else:
            for index in range(config.experts_in(block)):
                yield from expert(config, block, index).values()
    yield NORM, (config.hidden,)
    if not config.tied_head:
        yield OUTPUT, (config.vocab, config.hidden)
