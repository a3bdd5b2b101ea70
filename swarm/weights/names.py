"""What a Mixtral checkpoint calls its tensors, in both layouts that Hugging Face writes. Standard library only.

`block_sparse_moe.experts.N.w1` is what all released checkpoints have; `mlp.experts.gate_up_proj` [E, 2F, H] is what
transformers 5 keeps in memory and writes when it is told not to convert back.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from swarm.config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"
OUTPUT = "lm_head.weight"

Shape = tuple[int, ...]


def core(config: ModelConfig, block: int, names: Container[str]) -> dict[str, tuple[str, Shape]]:
    """Name and shape of each tensor of a Block without its experts, by its letter: norm1, q, k, v, o, norm2, router."""
    c, at = config, f"model.layers.{block}"
    return {
        "norm1": (f"{at}.input_layernorm.weight", (c.hidden,)),
        "q": (f"{at}.self_attn.q_proj.weight", (c.num_heads * c.head_dim, c.hidden)),
        "k": (f"{at}.self_attn.k_proj.weight", (c.num_kv_heads * c.head_dim, c.hidden)),
        "v": (f"{at}.self_attn.v_proj.weight", (c.num_kv_heads * c.head_dim, c.hidden)),
        "o": (f"{at}.self_attn.o_proj.weight", (c.hidden, c.num_heads * c.head_dim)),
        "norm2": (f"{at}.post_attention_layernorm.weight", (c.hidden,)),
        "router": (f"{at}.{'mlp' if is_fused(block, names) else 'block_sparse_moe'}.gate.weight", (c.num_experts, c.hidden)),
    }


def is_fused(block: int, names: Container[str]) -> bool:
    """Whether a Block's experts are one tensor for all."""
    return f"model.layers.{block}.mlp.experts.gate_up_proj" in names


def experts(config: ModelConfig, block: int) -> dict[str, tuple[str, Shape]]:
    """The fused layout: w13 [E, 2F, H] and w2 [E, H, F]."""
    c, at = config, f"model.layers.{block}.mlp.experts"
    return {
        "w13": (f"{at}.gate_up_proj", (c.num_experts, 2 * c.ffn, c.hidden)),
        "w2": (f"{at}.down_proj", (c.num_experts, c.hidden, c.ffn)),
    }


def expert(config: ModelConfig, block: int, index: int) -> dict[str, tuple[str, Shape]]:
    """The layout of one tensor an expert: w1 and w3 [F, H], w2 [H, F]."""
    c, at = config, f"model.layers.{block}.block_sparse_moe.experts.{index}"
    shapes = {"w1": (c.ffn, c.hidden), "w2": (c.hidden, c.ffn), "w3": (c.ffn, c.hidden)}
    return {letter: (f"{at}.{letter}.weight", shape) for letter, shape in shapes.items()}


def expected(config: ModelConfig, names: Container[str]) -> Iterator[tuple[str, Shape]]:
    """Every tensor that the model needs, with its shape, given the names that the checkpoint has."""
    yield EMBEDDING, (config.vocab, config.hidden)
    for block in range(config.num_blocks):
        yield from core(config, block, names).values()
        if is_fused(block, names):
            yield from experts(config, block).values()
        else:
            for index in range(config.num_experts):
                yield from expert(config, block, index).values()
    yield NORM, (config.hidden,)
    if not config.tied_head:
        yield OUTPUT, (config.vocab, config.hidden)
